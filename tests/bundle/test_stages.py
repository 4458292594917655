from __future__ import annotations

import pytest
import torch

from monai_fetalkd.bundle.stages import one_cycle


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
