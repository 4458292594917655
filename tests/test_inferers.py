from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import PatchInferer, SlidingWindowInferer, SlidingWindowSplitter
from monai.networks.nets import ResNet
from torch import nn

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.inferers import PrecisionInferer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.taps import FeatureTaps

LAYERS = ["layer1", "layer2"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
SETTINGS = [(dtype, channels_last) for dtype in ("float32", "bfloat16") for channels_last in (False, True)]


def small_resnet(dims=2, block="basic"):
    torch.manual_seed(0)
    return ResNet(block, [1, 1, 1, 1], [4, 4, 8, 8], spatial_dims=dims, n_input_channels=1, num_classes=3)


def frames(dims=2):
    return torch.randn(4, 1, *(16,) * dims, generator=torch.Generator().manual_seed(1))


def tolerance(dtype):
    return {"float32": {"rtol": 1e-4, "atol": 1e-5}, "bfloat16": {"rtol": 0.1, "atol": 0.05}}[dtype]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "channels_last"), SETTINGS)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_logits_are_those_of_the_bare_network_within_the_precision(device, dtype, channels_last, dims, training):
    network, twin = (small_resnet(dims).train(training).to(device) for _ in range(2))
    x = frames(dims).to(device)
    logits = PrecisionInferer(dtype, channels_last)(x, network)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, twin(x), **tolerance(dtype))


@pytest.mark.parametrize(("dtype", "channels_last"), SETTINGS)
def test_gradients_flow_in_float32(dtype, channels_last):
    network, twin = small_resnet().eval(), small_resnet().eval()
    PrecisionInferer(dtype, channels_last)(frames(), network).square().sum().backward()
    twin(frames()).square().sum().backward()
    gradient, expected = (
        torch.cat([parameter.grad.flatten() for parameter in module.parameters()]) for module in (network, twin)
    )
    assert gradient.dtype == torch.float32
    assert (gradient - expected).norm() < {"float32": 1e-4, "bfloat16": 0.1}[dtype] * expected.norm()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_network_computes_in_the_precision_asked_for(dtype):
    network, x = small_resnet(), frames()
    taps = FeatureTaps(network, LAYERS)
    for surrounding in (False, True):  # the inferer's own setting holds, whatever autocast surrounds it
        with torch.autocast("cpu", torch.bfloat16, enabled=surrounding), taps:
            PrecisionInferer(dtype)(x, network)
        assert {feature.dtype for feature in taps.pop().values()} == {getattr(torch, dtype)}


def test_taps_may_stop_the_network_inside():
    network = small_resnet()
    taps = FeatureTaps(network, LAYERS, stop=True)
    with taps:
        PrecisionInferer("bfloat16", channels_last=True)(frames(), network)
    features = taps.pop()
    assert list(features) == LAYERS
    assert all(feature.requires_grad and feature.dtype == torch.bfloat16 for feature in features.values())


@pytest.mark.parametrize(("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_a_frame_of_one_channel_is_laid_out_channels_last_from_the_first_layer_on(dims, layout):
    network = small_resnet(dims)
    taps = FeatureTaps(network, ["conv1", *LAYERS])
    with taps:
        PrecisionInferer(channels_last=True)(frames(dims), network)
    for name, feature in taps.pop().items():
        assert feature.is_contiguous(memory_format=layout), name
        assert not feature.is_contiguous(), name
    assert network.layer1[0].conv2.weight.is_contiguous(memory_format=layout)


def test_the_layout_is_left_alone_unless_asked_for():
    network = small_resnet()
    PrecisionInferer("bfloat16")(frames(), network)
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_a_network_with_kernels_of_two_and_three_dimensions_is_converted_each_in_its_own_way():
    class Planes(nn.Module):
        def __init__(self):
            super().__init__()
            self.volume, self.plane = nn.Conv3d(1, 2, 3), nn.Conv2d(2, 2, 3)

        def forward(self, x):
            return self.plane(self.volume(x).amax(2))

    network = Planes()
    PrecisionInferer(channels_last=True)(torch.rand(1, 1, 8, 8, 8), network)
    assert network.plane.weight.is_contiguous(memory_format=torch.channels_last)
    assert network.volume.weight.stride()[1] == 1


def test_weights_are_converted_once_and_stay_the_same_parameters():
    network, infer = small_resnet(), PrecisionInferer(channels_last=True)
    before, state = list(network.parameters()), copy.deepcopy(network.state_dict())
    infer(frames(), network.eval())
    memory = [parameter.data_ptr() for parameter in before]
    infer(frames(), network)
    assert all(one is other for one, other in zip(network.parameters(), before, strict=True))
    assert [parameter.data_ptr() for parameter in network.parameters()] == memory
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)


def test_weights_first_used_in_inference_mode_can_be_trained_afterwards():
    network, infer = small_resnet(), PrecisionInferer(channels_last=True)
    with torch.inference_mode():
        infer(frames(), network)
    infer(frames(), network).sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()


def test_each_network_that_is_seen_is_converted():
    infer, networks = PrecisionInferer(channels_last=True), [small_resnet(), small_resnet()]
    for network in (*networks, copy.deepcopy(networks[0])):
        infer(frames(), network)
        assert network.layer1[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_function_may_stand_for_the_network():
    infer = PrecisionInferer("bfloat16", channels_last=True)
    assert infer(torch.ones(1, 2, 3, 3), lambda x: x @ x.mT).dtype == torch.float32


def test_an_output_that_is_no_tensor_of_half_precision_is_handed_on():
    assert PrecisionInferer()(torch.zeros(1), lambda x: {"logits": x, "name": "a"})["name"] == "a"
    assert PrecisionInferer()(torch.zeros(1, dtype=torch.float64), lambda x: x).dtype == torch.float64
    assert PrecisionInferer("bfloat16")(torch.zeros(1), lambda x: x.long()).dtype == torch.int64


@dataclass(frozen=True)
class Frozen:
    logits: torch.Tensor
    depth: int = 3


@dataclass
class Output:
    logits: torch.Tensor
    aux: list = field(init=False)

    def __post_init__(self):
        self.aux = [self.logits]


Pair = namedtuple("Pair", ["logits", "features"])
STRUCTURES = {
    "tuple": lambda x: (x, 1),
    "list": lambda x: [x, [x]],
    "named tuple": lambda x: Pair(x, {"deep": x}),
    "torch's tuple": lambda x: x.max(1),
    "dictionary": lambda x: {"logits": x, "name": "a"},
    "ordered dictionary": lambda x: OrderedDict(out=x, aux=None),
    "default dictionary": lambda x: defaultdict(list, out=x),
    "read-only mapping": lambda x: MappingProxyType({"out": x}),
    "dataclass": Output,
    "frozen dataclass": Frozen,
    "nested": lambda x: {"all": (Frozen(x), [x])},
}


def tensors(output):
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if hasattr(output, "__dataclass_fields__"):
        output = vars(output)
    if not isinstance(output, (Mapping, list, tuple)):
        return []
    parts = output.values() if isinstance(output, Mapping) else output
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.mark.parametrize("build", STRUCTURES.values(), ids=STRUCTURES)
def test_half_precision_leaves_in_float32_whatever_it_is_in(build):
    halves = []

    def network(x):
        halves.append(build(x @ x.mT))
        return halves[0]

    output = PrecisionInferer("bfloat16")(torch.ones(2, 2), network)
    assert {tensor.dtype for tensor in tensors(output)} == {torch.float32}
    assert len(tensors(output)) == len(tensors(halves[0])) > 0
    assert {tensor.dtype for tensor in tensors(halves[0])} == {torch.bfloat16}  # the network may keep its own
    assert type(output) is type(halves[0]) or isinstance(halves[0], MappingProxyType)


@pytest.mark.parametrize("build", STRUCTURES.values(), ids=STRUCTURES)
def test_float32_outputs_stay_as_they_are(build):
    output = PrecisionInferer()(torch.ones(2, 2), build)
    assert {tensor.dtype for tensor in tensors(output)} == {torch.float32}


class TestAroundAnotherInferer:
    @staticmethod
    def volume_and_network():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 3, padding=1))
        return torch.rand(1, 1, 12, 12, 12), network

    @pytest.mark.parametrize(("dtype", "channels_last"), SETTINGS)
    def test_sliding_windows_are_computed_in_the_precision_and_put_together_in_float32(self, dtype, channels_last):
        volume, network = self.volume_and_network()
        windows = SlidingWindowInferer(roi_size=8, overlap=0.5, mode="gaussian")
        expected = windows(volume, copy.deepcopy(network))
        seen = []
        network[1].register_forward_hook(lambda *args: seen.append(args[-1]))
        output = PrecisionInferer(dtype, channels_last, windows)(volume, network)
        assert output.dtype == torch.float32
        assert len(seen) > 1
        assert {feature.dtype for feature in seen} == {getattr(torch, dtype)}
        assert network[2].weight.is_contiguous(memory_format=torch.channels_last_3d) == channels_last
        torch.testing.assert_close(output, expected, **tolerance(dtype))

    def test_it_is_built_from_a_config(self):
        volume, network = self.volume_and_network()
        config = {
            "_target_": "monai_fetalkd.inferers.PrecisionInferer",
            "dtype": "bfloat16",
            "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8]},
        }
        infer = ConfigParser({"inferer": config}).get_parsed_content("inferer")
        assert isinstance(infer.inferer, SlidingWindowInferer)
        assert infer(volume, network).shape == (1, 2, 12, 12, 12)

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda infer: pickle.loads(pickle.dumps(infer))])
    def test_a_copy_keeps_it(self, clone):
        volume, network = self.volume_and_network()
        infer = PrecisionInferer("bfloat16", True, SlidingWindowInferer(roi_size=8))
        torch.testing.assert_close(clone(infer)(volume, network), infer(volume, network), rtol=0, atol=0)

    def test_patches_and_outputs_of_several_tensors(self):
        infer = PrecisionInferer("bfloat16", inferer=PatchInferer(SlidingWindowSplitter((4, 4)), batch_size=2))
        outputs = infer(torch.rand(1, 1, 8, 8), lambda x: (x @ x.mT, x @ x))
        assert [output.dtype for output in outputs] == [torch.float32] * 2

    def test_further_arguments_reach_the_network(self):
        infer = PrecisionInferer("bfloat16", inferer=SlidingWindowInferer(roi_size=4))
        output = infer(torch.ones(1, 1, 8, 8), lambda x, scale, shift: x * scale + shift, 2, shift=1)
        assert output.unique().tolist() == [3]


def test_metadata_and_further_arguments_reach_the_network():
    frame = MetaTensor(torch.rand(1, 1, 4, 4), meta={"filename": "frame.png"})
    output = PrecisionInferer("bfloat16", channels_last=True)(
        frame, lambda x, scale, shift: x * scale + shift, 2, shift=1
    )
    assert output.meta["filename"] == "frame.png"
    torch.testing.assert_close(output.as_tensor(), 2 * frame.as_tensor() + 1)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda infer: pickle.loads(pickle.dumps(infer))])
def test_a_copy_keeps_the_settings_and_converts_for_itself(clone):
    network, infer = small_resnet(), PrecisionInferer("bfloat16", channels_last=True)
    infer(frames(), network)
    copied, other = clone(infer), small_resnet()
    torch.testing.assert_close(copied(frames(), other), infer(frames(), network), rtol=0, atol=0)
    assert other.layer1[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", ["bf16", "float64", torch.bfloat16])
def test_an_unknown_precision_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype.*'float32', 'bfloat16', 'float16'"):
        PrecisionInferer(dtype)


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="float16 on a CPU .* use bfloat16"):
        PrecisionInferer("float16")(frames(), small_resnet())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_float16_runs_on_a_gpu():
    assert PrecisionInferer("float16")(frames().cuda(), small_resnet().cuda()).dtype == torch.float32


def test_a_compiled_network_is_compiled_once():
    torch.compiler.reset()
    network, infer = small_resnet().eval(), PrecisionInferer("bfloat16", channels_last=True)
    expected = infer(frames(), copy.deepcopy(network))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(infer(frames(), compiled), expected)
    with torch.compiler.set_stance("fail_on_recompile"):
        infer(frames(), compiled)


@pytest.mark.parametrize(("dtype", "channels_last"), SETTINGS)
def test_a_trainer_and_an_evaluator_take_it_with_taps(dtype, channels_last):
    student, teacher = small_resnet(), small_resnet()
    infer = PrecisionInferer(dtype, channels_last)
    batch = {"image": frames(), "label": torch.tensor([0, 1, 2, 0])}
    before = copy.deepcopy(student)
    trainer = DistillationTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=[batch],
        network=student,
        teacher=teacher,
        optimizer=torch.optim.AdamW(student.parameters()),
        student_layers=LAYERS,
        loss_function=DistillationLoss(feature_losses={"at": AttentionTransferLoss()}),
        inferer=infer,
        decollate=False,
    )
    trainer.run()
    assert {trainer.state.output[name].dtype for name in ("pred", "loss", "ce", "kd", "at")} == {torch.float32}
    moved = [not torch.equal(one, other) for one, other in zip(student.parameters(), before.parameters(), strict=True)]
    assert all(moved)
    evaluator = SupervisedEvaluator(
        device="cpu", val_data_loader=[batch], network=student, inferer=infer, decollate=False
    )
    evaluator.run()
    with torch.no_grad():
        torch.testing.assert_close(evaluator.state.output["pred"], student.eval()(frames()), **tolerance(dtype))
