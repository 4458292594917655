from __future__ import annotations

import pytest
import torch

from monai_fetalkd.losses import ChannelWiseLoss


def test_agrees_with_other_code_bases(dense_reference):
    for case in dense_reference.family("cwd"):
        loss, weight = ChannelWiseLoss(case.params["tau"]), case.params["loss_weight"]
        case.assert_agrees(
            lambda students, teachers, _, loss=loss, weight=weight: weight * loss(students[0], teachers[0])
        )


def test_each_channel_counts_alike_at_any_size():
    student, teacher = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once = ChannelWiseLoss(2.0)(student, teacher)
    torch.testing.assert_close(ChannelWiseLoss(2.0)(student.repeat(3, 5, 1, 1), teacher.repeat(3, 5, 1, 1)), once)
    # a constant added to a channel does not move what it looks at
    torch.testing.assert_close(ChannelWiseLoss(2.0)(student + 7, teacher - 3), once)


def test_positions_of_large_logits_do_not_overflow():
    student = torch.tensor([[[3e4, 0.0, -3e4]]], dtype=torch.float16)
    assert ChannelWiseLoss()(student, -student).isfinite()


def test_unequal_channels_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(2, 5, 4, 4\): use a ProjectedLoss"):
        ChannelWiseLoss()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))


@pytest.mark.parametrize("teacher", [(2, 3, 1, 1), (2, 3, 4, 4)])
def test_maps_of_one_position_are_refused(teacher):
    with pytest.raises(ValueError, match=r"one position.*\(2, 3, 1, 1\)"):
        ChannelWiseLoss()(torch.zeros(2, 3, 1, 1), torch.zeros(teacher))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        ChannelWiseLoss(temperature)
