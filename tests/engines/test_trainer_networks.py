"""Any network of MONAI that maps an image to something takes a step of both stages, as student and as teacher."""

from __future__ import annotations

import inspect

import monai
import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.networks import nets
from monai.utils import version_geq
from torch import nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import DistillationLoss
from monai_fetalkd.teachers import LiveTeacher

from .networks_of_monai import CLASSES, LEFT_OUT, NETWORKS, SAME_FORWARD

SIZES = {1: (32,), 2: (32, 32), 3: (16, 16, 16)}
ALL = [(name, dims) for name, network in NETWORKS.items() for dims in network.dims]
# those whose training output is several tensors
REFUSED = {
    "AutoencoderKL": "a tuple of 3",
    "BasicUNetPlusPlus": "a list of 4",
    "EfficientNetBNFeatures": "a list of 5",
    "MaskedAutoEncoderViT": "a tuple of 2",
    "MedNeXt": "a tuple of 3",
    "ResNetFeatures": "a list of 5",
    "SegResNetDS": "a list of 2",
    "SegResNetDS2": "a tuple of 2",
    "SegResNetVAE": "a tuple of 2",
    "VQVAE": "a tuple of 2",
    "VarAutoEncoder": "a tuple of 4",
    "VarFullyConnectedNet": "a tuple of 4",
    "ViT": "a tuple of 2",
    "ViTAutoEnc": "a tuple of 2",
}
DEEP = ["BasicUNetPlusPlus", "DynUNet", "MedNeXt", "SegResNetDS", "SegResNetDS2"]


def pair(name, dims):
    """Student, teacher and an input."""
    network = NETWORKS[name]
    if network.needs:
        pytest.importorskip(network.needs)
    if name == "Quicknat":
        pytest.importorskip("monai", "1.6", reason="its forward pass fails within MONAI before 1.6")
    torch.manual_seed(0)
    student, teacher = network.build(1, dims), network.build(2, dims)
    return student, teacher, torch.rand(2, *(network.shape or (1, *SIZES[dims])))


def label_of(name, student, image):
    task = NETWORKS[name].task
    if task == "frames":
        return torch.tensor([0, 2])
    if task == "voxels":
        return torch.randint(CLASSES, (2, 1, *image.shape[2:]))
    with torch.no_grad():
        values = student(image)
    return torch.rand_like(values if isinstance(values, torch.Tensor) else values[0])


def step(kind, student, teacher, image, **arguments):
    trainer = kind(
        device="cpu",
        max_epochs=1,
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.01),
        decollate=False,
        **{"train_data_loader": [{"image": image}], **arguments},
    )
    trainer.logger.disabled = True
    before = [parameter.detach().clone() for parameter in student.parameters()]
    trainer.run()
    assert torch.isfinite(trainer.state.output["loss"])
    assert any(not torch.equal(now, then) for now, then in zip(student.parameters(), before, strict=True))
    return trainer


def distil(name, dims, student, teacher, image, **arguments):
    network = NETWORKS[name]
    loss = {"label_loss": nn.MSELoss(), "soft_target_loss": nn.MSELoss()} if network.task == "values" else {}
    batch = {"image": image, "label": label_of(name, student, image)}
    return step(
        DistillationTrainer,
        student,
        teacher,
        image,
        **{"train_data_loader": [batch], "loss_function": DistillationLoss(**loss), **arguments},
    )


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_a_step_of_stage_two(name, dims):
    network = NETWORKS[name]
    student, teacher, image = pair(name, dims)
    output = {"student_output": network.output}
    if name == "DynUNet":  # its heads are stacked while it trains
        output = {"loss_function": DistillationLoss(label_loss=deep_supervision())}
    distil(name, dims, student, LiveTeacher(teacher, output=network.teacher_output), image, **output)


@pytest.mark.parametrize(("name", "dims"), [case for case in ALL if NETWORKS[case[0]].layer])
def test_a_step_of_stage_one(name, dims):
    student, teacher, image = pair(name, dims)
    layer = NETWORKS[name].layer
    trainer = step(AttentionTransferTrainer, student, teacher, image, student_layers=[layer], logits=False)
    assert trainer.state.output[f"at_{layer}"] > 0


@pytest.mark.parametrize("name", REFUSED)
def test_an_output_of_several_tensors_is_refused_with_the_way_out(name):
    student, teacher, image = pair(name, 2)
    teacher = LiveTeacher(teacher, output=NETWORKS[name].teacher_output)
    with pytest.raises(ValueError, match=rf"student returned {REFUSED[name]} \(.*`output`"):
        distil(name, 2, student, teacher, image)


def test_only_networks_that_are_refused_name_their_output():
    assert REFUSED.keys() == {name for name, network in NETWORKS.items() if network.output is not None}


def deep_supervision():
    return DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True))


@pytest.mark.parametrize("name", DEEP)
def test_all_heads_of_deep_supervision_learn(name):
    student, teacher, image = pair(name, 2)
    loss = DistillationLoss(label_loss=deep_supervision())
    output = 0 if name == "SegResNetDS2" else None  # it has two branches, each of several heads
    teacher = LiveTeacher(teacher, output=NETWORKS[name].teacher_output)
    trainer = distil(name, 2, student, teacher, image, loss_function=loss, student_output=output)
    assert trainer.state.output["pred"].shape == (2, CLASSES, *image.shape[2:])


def test_every_network_of_monai_is_known():
    exported = {cls.__name__ for _, cls in inspect.getmembers(nets, inspect.isclass) if issubclass(cls, nn.Module)}
    known = NETWORKS.keys() | SAME_FORWARD.keys() | LEFT_OUT.keys()
    assert not exported - known
    if version_geq(monai.__version__, "1.6.0"):  # a class of ours may be younger than the MONAI that is installed
        assert not known - exported


@pytest.mark.parametrize(("name", "tried"), SAME_FORWARD.items())
def test_networks_that_are_not_tried_run_the_code_of_one_that_is(name, tried):
    assert getattr(nets, name).forward is getattr(nets, tried).forward
