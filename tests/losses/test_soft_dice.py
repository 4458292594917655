from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss
from torch.nn.functional import one_hot

from monai_fetalkd.losses import SoftDiceLoss


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_other_code_bases(dense_reference):
    for case in dense_reference.family("jdt"):
        params = case.params
        loss = SoftDiceLoss(params["alpha"] == 1, params["norm"] == 2, batch=True, smooth=params["smooth"])
        case.assert_agrees(lambda students, teachers, _, loss=loss: loss(students[0], teachers[0]))


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("jaccard", [False, True])
def test_a_teacher_that_is_sure_is_a_label_to_monai(batch, jaccard):
    student, label = randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    hot = one_hot(label, 3).movedim(-1, 1).double()
    monai = DiceLoss(softmax=True, batch=batch, jaccard=jaccard, smooth_nr=0.02, smooth_dr=0.02)
    value = SoftDiceLoss(jaccard, batch=batch, smooth=0.01)(student, 1e4 * hot)
    torch.testing.assert_close(value, monai(student, hot))


def test_soft_targets_cost_nothing_where_they_are_met():
    teacher = randn(2, 3, 4, 5)
    assert SoftDiceLoss()(teacher, teacher) == SoftDiceLoss(jaccard=True)(teacher, teacher) == 0
    assert DiceLoss(softmax=True)(teacher, teacher.softmax(1)) > 0.1


def test_a_class_that_neither_network_sees_costs_next_to_nothing():
    student, teacher = randn(1, 2, 4, 5), randn(1, 2, 4, 5, seed=1)
    expected = SoftDiceLoss()(student, teacher)
    unseen = torch.full((1, 1, 4, 5), -50.0)
    value = SoftDiceLoss()(torch.cat([student, unseen], 1), torch.cat([teacher, unseen], 1))
    torch.testing.assert_close(value, expected * 2 / 3)


def test_classes_of_a_sigmoid_head_are_independent():
    student, teacher = randn(2, 3, 4, 5), randn(2, 3, 4, 5, seed=1)
    each = [SoftDiceLoss(sigmoid=True)(student[:, [c]], teacher[:, [c]]) for c in range(3)]
    torch.testing.assert_close(SoftDiceLoss(sigmoid=True)(student, teacher), sum(each) / 3)


@pytest.mark.parametrize("smooth", [0.0, -1.0, float("nan")])
def test_impossible_smoothing_is_refused(smooth):
    with pytest.raises(ValueError, match="smooth must be positive"):
        SoftDiceLoss(smooth=smooth)
