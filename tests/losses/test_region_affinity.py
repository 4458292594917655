from __future__ import annotations

import pytest
import torch

from monai_fetalkd.losses import RegionAffinityLoss


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_other_code_bases(dense_reference):
    for case in dense_reference.family("emkd_rad"):
        loss = RegionAffinityLoss(case.params["num_classes"])
        case.assert_agrees(lambda students, teachers, label, loss=loss: loss(students[0], teachers[0], label))


def test_an_absent_class_drops_out():
    student, teacher = randn(2, 4, 6, 6), randn(2, 4, 6, 6, seed=1)
    label = torch.randint(3, (2, 6, 6), generator=torch.Generator().manual_seed(2))
    expected = RegionAffinityLoss(3)(student, teacher, label)
    torch.testing.assert_close(RegionAffinityLoss(5)(student, teacher, label), expected)
    # class 0 is absent from the second image: one pair is left there, beside three of the first
    label[1] = label[1].clamp_min(1)
    first = RegionAffinityLoss(3)(student[:1], teacher[:1], label[:1])
    second = RegionAffinityLoss(3)(student[1:], teacher[1:], label[1:])
    torch.testing.assert_close(RegionAffinityLoss(3)(student, teacher, label), (3 * first + second) / 4)


def test_an_image_of_one_class_has_no_pair():
    student = randn(1, 4, 6).requires_grad_()
    loss = RegionAffinityLoss(3)(student, randn(1, 4, 6, seed=1), torch.ones(1, 6))
    loss.backward()
    assert loss == 0
    assert student.grad.abs().max() == 0


def test_the_teacher_may_be_wider_and_features_tiny():
    student, teacher = randn(2, 4, 6, 6), randn(2, 9, 6, 6, seed=1)
    label = torch.randint(3, (2, 6, 6), generator=torch.Generator().manual_seed(2))
    expected = RegionAffinityLoss(3)(student, teacher, label)
    tiny = RegionAffinityLoss(3)((1e-25 * student).float(), (1e25 * teacher).float(), label)
    torch.testing.assert_close(tiny.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("num_classes", [1, 0, 2.5])
def test_too_few_classes_are_refused(num_classes):
    with pytest.raises(ValueError, match=f"num_classes must be .* at least 2, got {num_classes}"):
        RegionAffinityLoss(num_classes)
