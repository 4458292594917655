from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_fetalkd.losses import DISTLoss


def test_agrees_with_other_code_bases(dense_reference, reference):
    for case in dense_reference.family("dist"):
        loss = DISTLoss(case.params["beta"], case.params["gamma"], case.params["tau"])
        case.assert_agrees(lambda students, teachers, _, loss=loss: loss(students[0], teachers[0]))
    for case in reference.family("dist"):  # of other epsilons
        get = case.params.get
        inter, intra = get("beta") or get("inter_loss_weight"), get("gamma") or get("intra_loss_weight")
        loss = DISTLoss(inter, intra, get("tau", 1.0))
        case.assert_agrees(lambda students, teachers, _, loss=loss: loss(students[0], teachers[0]), rel=1e-6)


def test_parts_are_the_correlations_of_numpy():
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = student.softmax(1).numpy(), teacher.softmax(1).numpy()
    inter = 1 - np.mean([np.corrcoef(*rows)[0, 1] for rows in zip(p, q, strict=True)])
    intra = 1 - np.mean([np.corrcoef(*rows)[0, 1] for rows in zip(p.T, q.T, strict=True)])
    assert DISTLoss(1.0, 0.0)(student, teacher).item() == pytest.approx(inter, rel=1e-6)
    assert DISTLoss(0.0, 1.0)(student, teacher).item() == pytest.approx(intra, rel=1e-6)
    assert DISTLoss(2.0, 3.0)(student, teacher).item() == pytest.approx(2 * inter + 3 * intra, rel=1e-6)


def test_a_mask_may_weigh_predictions():
    student, teacher = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    twice = [torch.cat([logits, logits[:1]]) for logits in (student, teacher)]
    weighted = DISTLoss()(student, teacher, torch.tensor([2.0, 1.0, 1.0]))
    torch.testing.assert_close(weighted, DISTLoss()(*twice), rtol=1e-6, atol=0)


def test_two_classes_agree_or_disagree():
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [4.0, 0.0]])
    assert DISTLoss(1.0, 0.0)(student, teacher).item() == pytest.approx((0 + 2) / 2, abs=1e-4)


def test_one_prediction_has_no_relation_to_others():
    logits = torch.tensor([[1.0, 0.0, 2.0]])
    assert DISTLoss(0.0, 1.0)(logits, logits) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"temperature": 0.0}, "temperature"), ({"inter_weight": -1.0}, "weights"), ({"intra_weight": np.inf}, "weights")],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DISTLoss(**arguments)
