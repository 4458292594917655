from __future__ import annotations

import pytest
import torch

from monai_fetalkd.bundle.stages import StageSettings, one_cycle, training_stage


def test_groups_with_rates_of_their_own_keep_their_ratio_over_the_cycle():
    head, stem = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [head]}, {"params": [stem], "lr": 0.01}], lr=0.1)
    schedule = one_cycle(optimizer, steps=20, lr=0.1)
    rates = []
    for _ in range(19):
        optimizer.step()
        schedule.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert max(rate for rate, _ in rates) == pytest.approx(0.1, rel=0.02)
    assert all(rate == pytest.approx(10 * other) for rate, other in rates)
    assert rates[-1][0] < 1e-4


def test_a_student_alone_learns_from_labels_as_a_distilled_one_does(tmp_path):
    seen = []

    def loss(logits, label):
        seen.append(label)
        return torch.nn.functional.l1_loss(logits, label)

    label = torch.stack([torch.ones(1, 4), torch.full((1, 4), -100.0)])  # the second item has none
    batch = {"image": torch.rand(2, 1, 4), "label": label.to(torch.int16)}
    stage = training_stage(
        StageSettings("cpu", tmp_path),
        "student",
        torch.nn.Conv1d(1, 1, 1),
        [batch],
        loss,
        tmp_path / "student.pt",
        1,
        0.1,
    )
    stage.run()
    torch.testing.assert_close(seen[0], torch.ones(1, 1, 4))
