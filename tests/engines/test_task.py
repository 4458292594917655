"""What one step asks of the networks, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SwinUNETR, UNet, ViT
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss, FeatureLoss
from monai_fetalkd.taps import FeatureTaps
from monai_fetalkd.teachers import LiveTeacher

CLASSES = 3


def classifier(width, dims=2):
    conv, pool = (nn.Conv1d, nn.AdaptiveAvgPool1d) if dims == 1 else (nn.Conv2d, nn.AdaptiveAvgPool2d)
    return nn.Sequential(
        conv(1, width, 3, stride=2, padding=1),
        nn.Tanh(),
        conv(width, width, 3, stride=2, padding=1),
        nn.Tanh(),
        pool(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


def segmenter(width):
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, CLASSES, 1))


def batch(*size, labels=True):
    image = torch.rand(2, 1, *(size or (16, 16)), generator=torch.Generator().manual_seed(0))
    return {"image": image, "label": torch.tensor([0, 2])} if labels else {"image": image}


def make(student, teacher, kind=DistillationTrainer, data=None, parameters=None, **arguments):
    return kind(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch() if data is None else data],
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters() if parameters is None else parameters, lr=0.1),
        decollate=False,
        **arguments,
    )


def attention(**arguments):
    return DistillationLoss(feature_losses={"at": AttentionTransferLoss(**arguments)})


class Checkpointed(nn.Module):
    def __init__(self, width, reentrant):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3), nn.Tanh())
        self.head = nn.Conv2d(width, CLASSES, 1)
        self.reentrant = reentrant

    def forward(self, x):
        return self.head(checkpoint(self.body, self.stem(x), use_reentrant=self.reentrant)).mean((2, 3))


def test_a_feature_inside_a_reentrant_checkpoint_is_refused():
    teacher = Checkpointed(8, reentrant=False)
    make(Checkpointed(4, False), teacher, student_layers=["body.0"], loss_function=attention()).run()
    with pytest.raises(ValueError, match=r"'body.0' of the student carries no gradient.*use_reentrant"):
        make(Checkpointed(4, True), teacher, student_layers=["body.0"], loss_function=attention()).run()


def test_a_feature_of_frozen_layers_is_refused():
    student = classifier(4)
    student[0].requires_grad_(False)
    with pytest.raises(ValueError, match="'1' of the student carries no gradient.*frozen"):
        make(student, classifier(8), student_layers=["1"], loss_function=attention()).run()
    make(student, classifier(8), student_layers=["3"], loss_function=attention()).run()


@pytest.mark.parametrize("logits", [True, False])
def test_layers_of_sliding_windows_are_compared_in_one_pass_and_refused_in_several(logits):
    def train(windows):
        inferer = SlidingWindowInferer((8, 8), sw_batch_size=windows)
        layers = {"student_layers": ["1"], "logits": logits, "inferer": inferer}
        trainer = make(segmenter(4), segmenter(8), AttentionTransferTrainer, batch(labels=False), **layers)
        trainer.run()
        return trainer

    assert train(windows=100).state.output["at_1"] > 0
    with pytest.raises(RuntimeError, match="ran .* times.*windows"):
        train(windows=2)


def test_sliding_windows_without_layers_are_distilled():
    data = {"image": batch()["image"], "label": torch.randint(CLASSES, (2, 1, 16, 16))}
    trainer = make(segmenter(4), segmenter(8), data=data, inferer=SlidingWindowInferer((8, 8), 3))
    trainer.run()
    assert trainer.state.output["pred"].shape == (2, CLASSES, 16, 16)
    assert trainer.state.output["kd"] > 0


@pytest.mark.parametrize("name", ["image", "label", "pred", "loss", "ce", "kd"])
def test_a_part_of_the_loss_never_takes_the_name_of_another_entry(name):
    with pytest.raises(ValueError, match=name):
        make(
            classifier(4),
            classifier(8),
            student_layers=["1"],
            loss_function=DistillationLoss(feature_losses={name: AttentionTransferLoss()}),
        ).run()


class Hint(nn.Module):
    def __init__(self):
        super().__init__()
        self.adapter = nn.Conv2d(4, 8, 1)

    def forward(self, student, teacher):
        return nn.functional.mse_loss(self.adapter(student), teacher)


def hint_loss():
    return DistillationLoss(feature_losses={"hint": FeatureLoss(Hint())})


def test_an_adapter_that_the_optimizer_lacks_is_refused():
    loss, student = hint_loss(), classifier(4)
    with pytest.raises(ValueError, match="optimizer lacks.*hint.loss.adapter.weight.*adapter.bias"):
        make(student, classifier(8), student_layers=["3"], loss_function=loss)
    for parameter in loss.parameters():  # one that shall not learn may be missing
        parameter.requires_grad_(False)
    make(student, classifier(8), student_layers=["3"], loss_function=loss).run()


def test_an_adapter_learns():
    loss, student = hint_loss(), classifier(4)
    before = [parameter.detach().clone() for parameter in loss.parameters()]
    parameters = [*student.parameters(), *loss.parameters()]
    make(student, classifier(8), student_layers=["3"], loss_function=loss, parameters=parameters).run()
    assert not any(torch.equal(now, then) for now, then in zip(loss.parameters(), before, strict=True))


def test_student_and_teacher_that_share_layers_are_refused():
    student, teacher = classifier(4), classifier(4)
    teacher[0] = student[0]
    for other in (teacher, student):
        with pytest.raises(ValueError, match="share layers.*copy"):
            make(student, other)
    teacher[0] = nn.Conv2d(1, 4, 3, stride=2, padding=1)
    teacher[0].weight = student[0].weight
    with pytest.raises(ValueError, match="share layers"):
        make(student, teacher)


def test_nothing_is_tapped_and_nobody_asked_for_weights_of_zero(monkeypatch):
    student, teacher = classifier(4), classifier(8)
    loss = DistillationLoss(kd_weight=0, feature_losses={"at": AttentionTransferLoss()}, feature_weights={"at": 0.0})
    trainer = make(student, teacher, student_layers=["1"], loss_function=loss)
    teacher.register_forward_hook(lambda *_: pytest.fail("the teacher was asked"))
    monkeypatch.setattr(FeatureTaps, "__enter__", lambda _: pytest.fail("a layer was tapped"))
    trainer.run()
    assert trainer.state.output.keys() == {"image", "label", "pred", "loss", "ce"}


class Stage(nn.Module):
    """A layer of channels last, as those of a Swin transformer."""

    def __init__(self, width):
        super().__init__()
        self.project = nn.Conv2d(1, width, 4, stride=4)

    def forward(self, x):
        return self.project(x).movedim(1, -1)


class Swin(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stage = Stage(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.stage(x).mean((1, 2)))


def test_a_student_of_channels_last_names_its_layout():
    def train(**layout):
        torch.manual_seed(0)
        student, teacher = Swin(24), LiveTeacher(classifier(8))
        layers = {"student_layers": ["stage"], "teacher_layers": ["3"]}
        trainer = make(student, teacher, **layers, loss_function=attention(), **layout)
        trainer.run()
        return trainer.state.output["at"]

    with pytest.raises(ValueError, match="stage of the student.*channels last.*'channels_last'"):
        train()
    assert train(student_layout="channels_last") == train(student_layout={"stage": "channels_last"}) > 0
    for layout in ("last", {"stage": "last"}):
        with pytest.raises(ValueError, match="layout"):
            train(student_layout=layout)
    with pytest.raises(ValueError, match="no layer 'stages'"):
        train(student_layout={"stages": "channels_last"})


def vit(width, classes=CLASSES):
    return ViT(1, 32, 8, width, width, 2, 2, classification=True, num_classes=classes, spatial_dims=2)


@pytest.mark.parametrize("kind", [AttentionTransferTrainer, DistillationTrainer])
def test_a_vision_transformer_teaches_a_convolutional_network(kind):
    pytest.importorskip("einops")
    teacher = LiveTeacher(vit(16), output=0)
    layers = {"student_layers": ["3"], "teacher_layers": ["blocks.1"]}
    loss = {} if kind is AttentionTransferTrainer else {"loss_function": attention()}
    trainer = make(classifier(4), teacher, kind, batch(32, 32), **layers, **loss)
    trainer.run()
    assert torch.isfinite(trainer.state.output["loss"])


def test_a_swin_transformer_teaches_a_unet():
    pytest.importorskip("einops")
    teacher = SwinUNETR(1, CLASSES, depths=(1,) * 4, num_heads=(1,) * 4, window_size=2, feature_size=12, spatial_dims=2)
    data = {"image": batch(64, 64)["image"], "label": torch.randint(CLASSES, (2, 1, 64, 64))}
    layers = {"student_layers": ["model.0"], "teacher_layers": ["swinViT.layers1.0.blocks.0"]}
    trainer = make(
        UNet(2, 1, CLASSES, (4, 8), (2,)),
        LiveTeacher(teacher, layout="channels_last"),
        data=data,
        loss_function=attention(),
        **layers,
    )
    trainer.run()
    assert trainer.state.output["at"] > 0


def test_a_network_of_signals_is_distilled():
    layers = {"student_layers": ["3"], "loss_function": attention()}
    trainer = make(classifier(4, dims=1), classifier(8, dims=1), data=batch(40), **layers)
    trainer.run()
    assert trainer.state.output["at"] > 0
