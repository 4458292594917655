from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from monai.networks.nets import ResNet
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_fetalkd.taps import FeatureTaps

LAYERS = ["layer1", "layer2", "layer3", "layer4"]
QUIET = pytest.mark.filterwarnings("ignore")  # TorchScript and its exporter warn that they are deprecated


def small_resnet(block="basic", dims=2):
    torch.manual_seed(0)
    return ResNet(block, [1, 2, 1, 1], [4, 4, 8, 8], spatial_dims=dims, n_input_channels=1, num_classes=3)


def frames(count=4, dims=2):
    return torch.randn(count, 1, *(16,) * dims, generator=torch.Generator().manual_seed(1))


def features_by_hand(network, x):
    x = network.maxpool(network.act(network.bn1(network.conv1(x))))
    features = {}
    for name in LAYERS:
        x = features[name] = getattr(network, name)(x)
    return features


def tapped(network, layers, x):
    taps = FeatureTaps(network, layers)
    with taps:
        network(x)
    return taps.pop()


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
def test_features_are_the_outputs_of_the_layers_in_the_order_given(block, dims, mode, training):
    network, x = small_resnet(block, dims).train(training), frames(dims=dims)
    with mode():
        expected = features_by_hand(network, x)
        features = tapped(network, LAYERS[::-1], x)
    assert list(features) == LAYERS[::-1]
    for name in LAYERS:
        torch.testing.assert_close(features[name], expected[name])


def test_gradients_flow_through_the_features():
    network, twin, x = small_resnet(), small_resnet(), frames()
    tapped(network, ["layer2"], x)["layer2"].square().sum().backward()
    features_by_hand(twin, x)["layer2"].square().sum().backward()
    assert network.layer3[0].conv1.weight.grad is None
    for name in ("conv1.weight", "layer2.1.conv2.weight"):
        torch.testing.assert_close(network.get_parameter(name).grad, twin.get_parameter(name).grad)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layr3", r"no layer 'layr3' in ResNet; near names: 'layer3'"),
        ("module.layer3", r"no layer 'module.layer3' in ResNet; near names: 'layer3'"),
        ("decoder", r"no layer 'decoder' in ResNet; near names: 'conv1', 'bn1', .*'fc'$"),
        ("", r"no layer '' in ResNet"),
        ("layer3:", r"the call in 'layer3:' must be a number counted from 0"),
        ("layer3:last", r"the call in 'layer3:last' must be a number counted from 0"),
    ],
)
def test_unknown_name_is_refused_with_the_near_ones(name, message):
    with pytest.raises(ValueError, match=message):
        FeatureTaps(small_resnet(), ["layer1", name])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], r"a list of one or more layer names, such as \['layer4'\], got \[\]"),
        ("layer4", r"a list of one or more layer names, such as \['layer4'\], got 'layer4'"),
        (["layer4", "layer3", "layer4"], r"layer 'layer4' is named twice"),
    ],
)
def test_what_is_not_a_list_of_distinct_names_is_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        FeatureTaps(small_resnet(), layers)


def test_a_layer_that_runs_twice_is_read_by_the_number_of_its_call():
    network, x = small_resnet(), frames()
    block = network.layer1[0]
    inside = network.maxpool(network.act(network.bn1(network.conv1(x))))
    features = tapped(network, ["layer1.0.act:1", "layer1.0.act:0"], x)
    torch.testing.assert_close(features["layer1.0.act:0"], block.bn1(block.conv1(inside)).relu())
    torch.testing.assert_close(features["layer1.0.act:1"], block(inside))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer1.0.act", r"'layer1.0.act' ran 2 times: say which call, from 'layer1.0.act:0' to 'layer1.0.act:1'"),
        ("layer1.0.act:2", r"no output 'layer1.0.act:2': the layer ran 2 time"),
    ],
)
def test_an_ambiguous_or_missing_call_raises(name, message):
    with pytest.raises(RuntimeError, match=message):
        tapped(small_resnet(), [name], frames())


def test_an_output_overwritten_in_place_raises():
    with pytest.raises(RuntimeError, match=r"output of layer 'bn1' was overwritten in place .* tap a later layer"):
        tapped(small_resnet(), ["layer1", "bn1"], frames())


@torch.inference_mode()
def test_an_output_overwritten_in_inference_mode_is_copied():
    network, x = small_resnet(), frames()
    expected = network.bn1(network.conv1(x))
    assert expected.min() < 0
    torch.testing.assert_close(tapped(network, ["bn1"], x)["bn1"], expected)


def test_an_in_place_layer_can_be_tapped_itself():
    features = tapped(nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)), ["1"], torch.tensor([-1.0, 2.0]))
    assert features["1"].tolist() == [0.0, 2.0]


def test_an_output_that_is_no_tensor_raises():
    with pytest.raises(TypeError, match=r"layer '0' returned a tuple or list of 2, not a tensor.*'0\[0\]'"):
        tapped(nn.Sequential(nn.LSTM(2, 3), nn.Identity()), ["0"], torch.zeros(4, 1, 2))


def test_a_layer_that_did_not_run_is_named():
    network = small_resnet()
    network.unused, network.spare = nn.Identity(), nn.Identity()
    with pytest.raises(RuntimeError, match=r"nothing captured at 'unused', 'spare': call the module inside"):
        tapped(network, ["layer1", "unused", "spare"], frames())


def test_a_block_is_read_once():
    network, x = small_resnet(), frames()
    taps = FeatureTaps(network, ["layer1"])
    with pytest.raises(RuntimeError, match="nothing captured at 'layer1'"):
        taps.pop()
    with taps:
        network(x)
        assert list(taps.pop()) == ["layer1"]  # within the block or after it
        network(x)
    taps.pop()
    with pytest.raises(RuntimeError, match="nothing captured at 'layer1'"):
        taps.pop()


def test_a_failed_reading_keeps_nothing():
    network = small_resnet()
    taps = FeatureTaps(network, ["layer1", "layer1.0.act"])
    with taps:
        network(frames())
    with pytest.raises(RuntimeError, match="ran 2 times"):
        taps.pop()
    with pytest.raises(RuntimeError, match="nothing captured at 'layer1', 'layer1.0.act'"):
        taps.pop()


def test_what_runs_outside_the_block_is_not_captured():
    network, x, other = small_resnet().eval(), frames(), frames(count=2)
    taps = FeatureTaps(network, ["layer3"])
    network(other)
    with taps:
        network(other)
    with taps:  # what a block left unread does not reach the next
        network(x)
    network(other)
    torch.testing.assert_close(taps.pop()["layer3"], features_by_hand(network, x)["layer3"])


def test_two_taps_may_watch_the_same_layer():
    network, x = small_resnet(), frames()
    outer, inner = FeatureTaps(network, ["layer1", "layer2"]), FeatureTaps(network, ["layer2", "layer3"])
    for alone in (outer, inner):
        with alone:
            network(x)
    with outer, inner:
        network(x)
    assert outer.pop()["layer2"] is inner.pop()["layer2"]
    with outer:
        network(x)
    assert list(outer.pop()) == ["layer1", "layer2"]
    with pytest.raises(RuntimeError, match="nothing captured"):
        inner.pop()


def test_a_block_is_not_entered_twice_at_once():
    network, x = small_resnet(), frames()
    with FeatureTaps(network, ["layer1"]) as taps:
        with pytest.raises(RuntimeError, match="already capturing"), taps:
            pass
        network(x)
    assert list(taps.pop()) == ["layer1"]


def test_an_exception_leaves_the_module_clean_and_the_taps_empty():
    network = small_resnet()
    network.fc = nn.Linear(99, 3)  # fails, after all the layers have run
    taps = FeatureTaps(network, LAYERS)
    before = {name: dict(vars(module)) for name, module in network.named_modules()}
    with pytest.raises(RuntimeError, match="mat1 and mat2"), taps:
        network(frames())
    assert {name: vars(module) for name, module in network.named_modules()} == before
    with pytest.raises(RuntimeError, match="nothing captured"):
        taps.pop()


def test_a_forward_set_on_the_layer_itself_is_captured_and_kept():
    network = nn.Sequential(nn.Identity())
    own_forward = network[0].forward = lambda x: x + 1
    assert tapped(network, ["0"], torch.zeros(1))["0"].item() == 1
    assert network[0].forward is own_forward


def test_nothing_stays_alive_once_the_features_are_dropped():
    network, x = small_resnet(), frames().requires_grad_()
    taps = FeatureTaps(network, ["layer4"])
    with taps:
        logits = network(x)
    features = taps.pop()
    feature, image = weakref.ref(features["layer4"]), weakref.ref(x)  # the graph holds the image
    del features, logits, x
    gc.collect()
    assert feature() is None
    assert image() is None


@QUIET
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_made_inside_the_block_is_its_own_and_untapped(clone):
    network, x = small_resnet().eval(), frames()
    taps = FeatureTaps(network, ["layer1"])
    with taps:
        expected = network(x)
        twin = clone(network)
        torch.testing.assert_close(twin(x), expected)
        nn.init.zeros_(twin.layer1[0].conv2.weight)
        assert not torch.equal(twin(x), expected)
    torch.testing.assert_close(taps.pop()["layer1"], features_by_hand(network, x)["layer1"])
    twin(x)
    with pytest.raises(RuntimeError, match="nothing captured"):
        taps.pop()
    torch.testing.assert_close(torch.jit.script(twin)(x), twin(x))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_the_taps_taps_the_copied_module(clone):
    network, x = small_resnet(), frames()
    twin, taps = clone((network, FeatureTaps(network, ["layer2", "layer1.0.act:0"])))
    with taps:
        network(x)
    with pytest.raises(RuntimeError, match="nothing captured"):
        taps.pop()
    with taps:
        twin(x)
    assert list(taps.pop()) == ["layer2", "layer1.0.act:0"]


@QUIET
def test_after_the_block_the_module_is_as_before():
    network, x = small_resnet().eval(), frames()
    state, expected = copy.deepcopy(network.state_dict()), network(x)
    taps = FeatureTaps(network, LAYERS)
    with taps:
        assert list(network.state_dict()) == list(state)
        network(x)
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    torch.testing.assert_close(torch.jit.script(network)(x), expected)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)
    torch.onnx.export(network, (x,), io.BytesIO(), dynamo=False)


def test_recomputing_a_checkpoint_disturbs_neither_features_nor_gradients():
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            for layer in self:
                x = checkpoint(layer, x, use_reentrant=False)
            return x

    x = torch.randn(4, 3)
    network = Checkpointed(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Tanh()), nn.Linear(3, 1))
    plain = nn.Sequential(*copy.deepcopy(network))
    taps = FeatureTaps(network, ["1", "1.0"])
    with taps:
        output = network(x)
    features = taps.pop()
    (output.sum() + features["1"].square().sum() + features["1.0"].square().sum()).backward()

    inside = plain[1][0](plain[0](x))
    (plain(x).sum() + inside.tanh().square().sum() + inside.square().sum()).backward()
    for parameter, expected in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)
    with pytest.raises(RuntimeError, match="nothing captured"):
        taps.pop()


def test_data_parallel_is_looked_through():
    wrapped = nn.DataParallel(small_resnet())
    wrapped.device_ids = []  # as without a GPU
    assert list(tapped(wrapped, ["layer3"], frames())) == ["layer3"]
    wrapped.device_ids = [0, 1]
    with pytest.raises(ValueError, match="DataParallel over several devices: use DistributedDataParallel"):
        FeatureTaps(wrapped, ["layer3"])


@pytest.mark.usefixtures("process_group")
def test_distributed_data_parallel_is_looked_through():
    network, twin, x = small_resnet(), small_resnet(), frames()
    features = tapped(nn.parallel.DistributedDataParallel(network), ["layer4"], x)
    expected = features_by_hand(twin, x)
    torch.testing.assert_close(features["layer4"], expected["layer4"])
    for feature in (features["layer4"], expected["layer4"]):
        feature.square().sum().backward()
    torch.testing.assert_close(network.conv1.weight.grad, twin.conv1.weight.grad)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.body = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


def compile_in_place(network, **options):
    network.compile(**options)
    return network


@pytest.mark.parametrize("compiled", [torch.compile, compile_in_place])
@pytest.mark.parametrize(
    "order", ["early plain late validate early", "plain late validate early", "validate early plain"]
)
def test_a_compiled_module_is_captured_in_any_order_of_calls(compiled, order):
    torch.compiler.reset()
    torch.manual_seed(0)
    network, x = Small(), torch.randn(5, 3)
    twin, layers = copy.deepcopy(network), ["body", "stem"]
    early = FeatureTaps(network, layers)
    compiled_network = compiled(network, backend="aot_eager", fullgraph=True)
    taps = {"early": early, "late": FeatureTaps(compiled_network, layers)}

    def loss_and_gradients(module, module_taps):
        with module_taps:
            logits = module(x)
        loss = sum(output.square().sum() for output in (logits, *module_taps.pop().values()))
        return loss, *torch.autograd.grad(loss, list(module.parameters()))

    def check(call):
        compiled_network.train(call != "validate")
        twin.train(call != "validate")
        if call in taps:
            expected = loss_and_gradients(twin, FeatureTaps(twin, layers))
            torch.testing.assert_close(loss_and_gradients(compiled_network, taps[call]), expected)
        else:
            with torch.set_grad_enabled(call == "plain"):
                torch.testing.assert_close(compiled_network(x), twin(x))

    for call in order.split():
        check(call)
    with torch.compiler.set_stance("fail_on_recompile"):
        for call in order.split():
            check(call)


def test_an_output_overwritten_in_a_compiled_module_is_copied():
    network, x = Small(), torch.randn(5, 3)
    expected = network.body[0](network.stem(x))
    assert expected.min() < 0
    torch.testing.assert_close(tapped(torch.compile(network, backend="aot_eager"), ["body.0"], x)["body.0"], expected)
