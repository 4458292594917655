"""Which store of targets belongs to a run, and what has none."""

from __future__ import annotations

import random

import pytest
import torch
from ignite.engine import Events
from monai.inferers import SimpleInferer
from monai.transforms import Compose, Lambdad, RandFlipd
from torch import nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss, FeatureLoss
from monai_fetalkd.targets import TeacherTargets

from .make import distillation_loss, frames, make, network, run, transforms


@pytest.fixture(params=[AttentionTransferTrainer, DistillationTrainer])
def kind(request):
    return request.param


class Doubling(SimpleInferer):
    def __init__(self, factor=2):
        self.factor = factor

    def __call__(self, inputs, network, *args, **kwargs):
        return super().__call__(inputs * self.factor, network)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher_seed": 1},
        {"teacher_layers": ["1", "4"]},
        {"student_layers": ["2"]},
        {"loss_function": distillation_loss(kind="channel")},
        {"loss_function": distillation_loss(power=1)},
        {"transform": transforms(noise=0.2)},
        {"rows": frames()[::-1]},
        {"seed": 1},
        {"views": 3},
        {"dtype": "uint8"},
        {"inferer": Doubling()},
        {"inferer": Doubling(3)},
    ],
    ids=lambda change: "-".join(change),
)
def test_whatever_the_targets_depend_on_has_its_own_store(tmp_path, change):
    run(tmp_path)
    _, seen = run(tmp_path, **change)
    assert len(seen.calls) >= 4
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "same", [{}, {"loss_function": distillation_loss(mode="norm")}, {"epochs": 5}, {"workers": 1}], ids=str
)
def test_what_the_targets_do_not_depend_on_shares_a_store(tmp_path, same):
    run(tmp_path)
    _, seen = run(tmp_path, **same)
    assert len(seen.calls) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_weights_loaded_when_the_run_starts_are_those_that_count(tmp_path):
    trainer, _ = make(tmp_path)
    other, _ = make(teacher_seed=1)
    trainer.run()
    trainer.add_event_handler(Events.STARTED, lambda _: _network(trainer).load_state_dict(_network(other).state_dict()))
    trainer.run()
    assert len(list(tmp_path.iterdir())) == 2


def _network(trainer):
    (network,) = trainer.teacher.networks()
    return network


def test_targets_of_a_transform_with_a_generator_of_its_own_are_not_served(tmp_path):
    def astray():
        return Compose([Lambdad("image", _times_global_random), RandFlipd("image")])

    run(tmp_path, transform=astray())
    with pytest.raises(ValueError, match="are not what the teacher says now of the same views"):
        run(tmp_path, transform=astray())


def _times_global_random(image):
    return image * random.uniform(0, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"loss_function": DistillationLoss(feature_losses={"hint": FeatureLoss(nn.MSELoss())})},
            "whole features .2, 4.: use AttentionTransferLoss, or leave targets out",
        ),
        (
            {
                "loss_function": DistillationLoss(
                    feature_losses={"where": AttentionTransferLoss(), "what": AttentionTransferLoss(kind="channel")}
                )
            },
            "losses on attention maps of one kind",
        ),
        ({"transform": Compose([Lambdad("image", lambda image: image)])}, "cannot be pickled"),
    ],
)
def test_what_cannot_be_stored_is_refused_when_the_trainer_is_made(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **arguments)


def test_a_loader_without_fixed_views_is_refused(kind, tmp_path):
    student = network(4)
    with pytest.raises(ValueError, match="FixedViews"):
        kind(
            device="cpu",
            max_epochs=1,
            train_data_loader=[{"image": torch.rand(2, 1, 16, 16)}],
            network=student,
            teacher=network(4),
            student_layers=["2"],
            optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
            targets=TeacherTargets(tmp_path),
        )
