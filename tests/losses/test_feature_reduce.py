"""What a loss keeps of a feature of the teacher is all that it needs of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_fetalkd.losses import AttentionTransferLoss, FeatureLoss
from monai_fetalkd.losses.attention import attention_map

SIZES = [
    ((6, 5), (6, 5)),
    ((6, 5), (9, 12)),
    ((9, 12), (6, 5)),
    ((9, 5), (6, 12)),
    ((7,), (14,)),
    ((4, 4, 4), (8, 4, 6)),
]


@pytest.mark.parametrize("kind", ["spatial", "channel"])
@pytest.mark.parametrize("power", [1, 2, 3.5])
@pytest.mark.parametrize("mode", ["sum_squared", "mean_squared", "norm"])
@pytest.mark.parametrize(("student_size", "teacher_size"), SIZES)
def test_a_loss_on_a_reduced_feature_is_the_loss_on_the_feature(kind, power, mode, student_size, teacher_size):
    torch.manual_seed(0)
    student = torch.randn(3, 8, *student_size, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 20, *teacher_size, dtype=torch.float64)
    loss = AttentionTransferLoss(mode, kind, power, layout="channels_first")
    values = [loss(student, target) for target in (teacher, loss.reduce(teacher, student))]
    torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(value, student)[0] for value in values]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "shape"), [("spatial", (2, 1, 4, 5)), ("channel", (2, 16, 1, 1))], ids=["spatial", "channel"]
)
def test_a_reduced_feature_holds_the_map_and_nothing_else(kind, shape):
    teacher = torch.randn(2, 16, 4, 5, requires_grad=True)
    reduced = AttentionTransferLoss(kind=kind).reduce(teacher, torch.zeros(2, 3, 8, 8))
    assert reduced.shape == shape
    assert not reduced.requires_grad
    assert (reduced >= 0).all()
    torch.testing.assert_close(attention_map(reduced, kind), attention_map(teacher.detach(), kind))


@pytest.mark.parametrize("scale", [300.0, 1e-4])
def test_half_precision_neither_overflows_nor_vanishes(scale):
    teacher = torch.full((1, 4, 2, 2), scale, dtype=torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = AttentionTransferLoss().reduce(teacher, teacher)
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, teacher[:, :1].float())


def test_maps_of_other_kinds_and_powers_have_other_names():
    losses = [AttentionTransferLoss(), AttentionTransferLoss(kind="channel"), AttentionTransferLoss(power=1)]
    assert len({loss.reduced for loss in losses}) == 3
    assert AttentionTransferLoss("norm", power=2).reduced == AttentionTransferLoss(power=2.0).reduced


def test_a_loss_on_whole_features_keeps_them_whole():
    loss, teacher = FeatureLoss(nn.MSELoss()), torch.rand(1, 2, 3)
    assert loss.reduced is None
    assert loss.reduce(teacher, torch.rand(1, 2, 3)) is teacher


def test_features_of_unequal_dimensions_are_named():
    with pytest.raises(ValueError, match=r"same number of spatial dimensions, got \(1, 2, 4\) and \(1, 2, 4, 4\)"):
        AttentionTransferLoss().reduce(torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4))
