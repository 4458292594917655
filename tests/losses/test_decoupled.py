from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_fetalkd.losses import DecoupledLoss, SoftTargetLoss


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_other_code_bases(dense_reference, reference):
    for case in dense_reference.family("dkd") + reference.family("dkd"):
        get = case.params.get
        loss = DecoupledLoss(get("alpha"), get("beta"), get("tau") or get("temperature"))
        weight = get("loss_weight", 1.0)
        case.assert_agrees(
            lambda students, teachers, label, loss=loss, weight=weight: weight * loss(students[0], teachers[0], label)
        )


def test_the_parts_add_up_to_soft_targets():
    student, teacher, label = randn(1, 5), randn(1, 5, seed=1), torch.tensor([2])
    others = 1 - (teacher / 2).softmax(1)[0, 2].item()
    torch.testing.assert_close(
        DecoupledLoss(1.0, others, 2.0)(student, teacher, label), SoftTargetLoss(2.0)(student, teacher)
    )


def test_of_two_classes_there_is_one_other():
    student, teacher, label = randn(4, 2), randn(4, 2, seed=1), torch.tensor([0, 1, 1, 0])
    assert DecoupledLoss(0.0, 8.0)(student, teacher, label) == 0
    torch.testing.assert_close(DecoupledLoss(1.0, 8.0)(student, teacher, label), SoftTargetLoss()(student, teacher))


@pytest.mark.parametrize("ignored", [255, -100])
def test_a_prediction_without_a_class_does_not_count(ignored):
    student, teacher = randn(3, 5), randn(3, 5, seed=1)
    value = DecoupledLoss()(student, teacher, torch.tensor([1, 4, ignored]))
    torch.testing.assert_close(value, DecoupledLoss()(student[:2], teacher[:2], torch.tensor([1, 4])))


@pytest.mark.parametrize("classes", [2, 4])
def test_a_teacher_may_rule_out_all_other_classes(classes):
    student = randn(2, classes).requires_grad_()
    teacher = torch.full((2, classes), -torch.inf, dtype=torch.float64)
    teacher[:, 1] = 0
    loss = DecoupledLoss()(student, teacher, torch.tensor([1, 1]))
    loss.backward()
    torch.testing.assert_close(loss.detach(), -16 * (student.detach() / 4).log_softmax(1)[:, 1].mean())
    assert student.grad.isfinite().all()


def test_a_sure_network_keeps_its_digits():
    logits = torch.tensor([[300.0, 0.0, -300.0]], dtype=torch.float16).requires_grad_()
    loss = DecoupledLoss(temperature=1.0)(logits, torch.tensor([[-300.0, 0.0, 300.0]]), torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(300 + 8 * 300)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"target_weight": -1.0}, "weights"),
        ({"other_weight": np.nan}, "weights"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DecoupledLoss(**arguments)
