from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_fetalkd.evaluation.cost import frame_milliseconds, multiply_accumulates, network_costs, peak_memory
from monai_fetalkd.networks import student_resnet, teacher_resnet


def test_multiply_accumulates_of_a_convolution_are_counted_by_hand():
    # 4 x 4 outputs, each of 2 channels over 3 x 3 x 1 inputs
    assert multiply_accumulates(nn.Conv2d(1, 2, 3, stride=2, padding=1), (1, 8, 8)) == 4 * 4 * 2 * 9


def test_multiply_accumulates_of_the_teacher_are_those_of_the_literature():
    # ResNet-50 at 3 x 224 x 224 is given as 4.1 G; one input channel saves two thirds of the first convolution
    three = multiply_accumulates(teacher_resnet(50, num_classes=1000, in_channels=3), (3, 224, 224))
    assert three / 1e9 == pytest.approx(4.09, abs=0.01)
    assert three - multiply_accumulates(teacher_resnet(50, num_classes=1000), (1, 224, 224)) == 112**2 * 64 * 49 * 2


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(100, 100, bias=False)

    def forward(self, x):
        x = self.layer(x)
        return self.layer(x).view(-1)


def test_peak_memory_is_that_of_the_tensors_that_live_at_once():
    # floats: the weights once, the frame (held by its caller), the first output, the second; a view costs nothing
    assert peak_memory(Twice(), (100,)) == 4 * (100 * 100 + 100 + 100 + 100)
    # a tensor that nothing holds any more is free: of the three layers' outputs two live at once
    chain = nn.Sequential(nn.Linear(10, 1000, bias=False), nn.ReLU(), nn.Linear(1000, 1, bias=False))
    assert peak_memory(chain, (10,)) == 4 * (10 * 1000 + 1000 + 10 + 1000 + 1000)


def test_a_measurement_leaves_mode_threads_and_statistics_alone():
    network = student_resnet(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    threads = torch.get_num_threads()
    times = frame_milliseconds([network, network.conv1], (1, 32, 32), repeats=3)
    peak_memory(network, (1, 32, 32))
    assert [len(row) for row in times] == [3, 3]
    assert all(time > 0 for row in times for time in row)
    assert network.training
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_costs_of_networks_side_by_side(tmp_path):
    networks = [(student_resnet(width), tmp_path / f"{width}.pt") for width in (2, 4)]
    for network, path in networks:
        torch.save(network.state_dict(), path)
    for (network, path), cost in zip(networks, network_costs(networks, (1, 32, 32), repeats=5), strict=True):
        assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
        assert cost.bytes == path.stat().st_size
        assert 0 < cost.milliseconds["median"] <= cost.milliseconds["p95"]
        assert cost.as_dict()["peak_memory_bytes"] == peak_memory(network, (1, 32, 32))
