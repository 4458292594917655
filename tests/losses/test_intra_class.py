from __future__ import annotations

import pytest
import torch

from monai_fetalkd.losses import IntraClassLoss


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_other_code_bases(dense_reference):
    for case in dense_reference.family("ifvd"):
        loss, weight = IntraClassLoss(case.params["num_classes"]), case.params["loss_weight"]
        case.assert_agrees(
            lambda students, teachers, label, loss=loss, weight=weight: weight * loss(students[0], teachers[0], label)
        )


def test_positions_of_no_class_add_nothing_but_count():
    student, teacher = randn(1, 4, 6), randn(1, 4, 6, seed=1)
    label = torch.tensor([[0, 1, 0, 1, 255, 255]])
    kept = IntraClassLoss(2)(student[..., :4], teacher[..., :4], label[:, :4])
    torch.testing.assert_close(IntraClassLoss(2)(student, teacher, label), kept * 4 / 6)


def test_a_class_that_is_absent_changes_nothing():
    student, teacher, label = randn(2, 4, 6), randn(2, 4, 6, seed=1), torch.tensor([[0, 1, 0, 1, 0, 0]] * 2)
    torch.testing.assert_close(IntraClassLoss(7)(student, teacher, label), IntraClassLoss(2)(student, teacher, label))


def test_the_label_is_resized_as_the_published_code_does():
    student, teacher = randn(1, 4, 2, 3), randn(1, 4, 2, 3, seed=1)
    label = torch.randint(2, (1, 5, 7), generator=torch.Generator().manual_seed(2))
    resized = torch.nn.functional.interpolate(label[:, None].float(), (2, 3), mode="nearest")
    loss = IntraClassLoss(2)
    torch.testing.assert_close(loss(student, teacher, label), loss(student, teacher, resized))


def test_means_are_those_of_each_image_and_scale_does_not_matter():
    student, teacher = randn(2, 4, 6), randn(2, 9, 6, seed=1)
    label = torch.tensor([[0, 1, 0, 1, 0, 0]] * 2)
    each = [IntraClassLoss(2)(student[[n]], teacher[[n]], label[[n]]) for n in range(2)]
    expected = sum(each) / 2
    torch.testing.assert_close(IntraClassLoss(2)(student, teacher, label), expected)
    tiny = IntraClassLoss(2)((1e-25 * student).float(), (1e25 * teacher).float(), label)
    torch.testing.assert_close(tiny.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("num_classes", [0, -1, 1.5])
def test_too_few_classes_are_refused(num_classes):
    with pytest.raises(ValueError, match=f"num_classes must be .* at least 1, got {num_classes}"):
        IntraClassLoss(num_classes)
