"""Several taps on one network, parts of what a layer returns, and several forward passes."""

from __future__ import annotations

import itertools
import sys
import threading

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from monai_fetalkd.taps import FeatureTaps


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def own_forwards(module):
    return [name for name, layer in module.named_modules() if "forward" in vars(layer)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_taps_of_one_network_are_left_in_any_order(order):
    net, x = network(), torch.rand(5, 3)
    expected = net[0](x)
    taps = [FeatureTaps(net, ["0"]), FeatureTaps(net, ["1", "0"]), FeatureTaps(net, ["0", "2"])]
    for one in taps:
        one.__enter__()
    net(x)
    for position, index in enumerate(order):
        taps[index].__exit__(None, None, None)
        assert torch.equal(taps[index].pop()["0"], expected)
        assert bool(own_forwards(net)) == (position < 2)
    assert own_forwards(net) == []


def test_taps_left_out_of_order_capture_no_more():
    net, x = network(), torch.rand(5, 3)
    first, second = FeatureTaps(net, ["0"]), FeatureTaps(net, ["0"])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    net(x)
    second.__exit__(None, None, None)
    assert torch.equal(second.pop()["0"], net[0](x))
    with pytest.raises(RuntimeError, match="nothing captured at '0'"):
        first.pop()


def test_a_forward_set_on_the_layer_comes_back_when_the_last_taps_leave():
    net = nn.Sequential(nn.Identity())
    own = net[0].forward = lambda x: x + 1
    first, second = FeatureTaps(net, ["0"]), FeatureTaps(net, ["0"])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert net(torch.zeros(1)).item() == 1
    second.__exit__(None, None, None)
    assert net[0].forward is own
    assert second.pop()["0"].item() == 1


def test_taps_entered_in_another_order_later_do_not_call_each_other_in_a_circle():
    net, x = network(), torch.rand(5, 3)
    first, second = FeatureTaps(net, ["0"]), FeatureTaps(net, ["0"])
    for order in ((first, second), (second, first), (second,), (first,), (second, first)):
        for taps in order:
            taps.__enter__()
        net(x)
        for taps in order:
            taps.__exit__(None, None, None)
        for taps in order:
            assert torch.equal(taps.pop()["0"], net[0](x))


@pytest.fixture
def hasty_threads():
    """Threads that take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_each_thread_captures_its_own_forward_pass():
    net, wrong = network(), []
    barrier = threading.Barrier(3)

    def work(number):
        taps = FeatureTaps(net, ["0", "2"])
        x = torch.full((2, 3), float(number))
        with torch.no_grad():
            expected = nn.functional.linear(x, net[0].weight, net[0].bias)
        barrier.wait()
        for _ in range(300):
            try:
                with taps, torch.no_grad():
                    output = net(x)
                found = taps.pop()
                if not torch.equal(found["0"], expected) or not torch.equal(found["2"], output):
                    wrong.append(number)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert own_forwards(net) == []


def test_a_pass_of_another_thread_is_not_captured():
    net, x = network(), torch.rand(5, 3)
    taps = FeatureTaps(net, ["0"])
    with taps:
        other = threading.Thread(target=net, args=(torch.zeros(1, 3),))
        other.start()
        other.join()
        net(x)
    assert taps.pop()["0"].shape == (5, 4)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4)
        self.block = Dictionary()

    def forward(self, x):
        return self.block(self.lstm(x)[0])["out"]


class Dictionary(nn.Module):
    def forward(self, x):
        return {"hidden": (x + 1, x + 2), "out": x}


def test_parts_of_what_a_layer_returns_are_named():
    net, x = Parts(), torch.rand(2, 5, 3)
    names = ["lstm[0]", "lstm[1][0]", "lstm[1][-1]", "block[out]", "block['hidden'][1]"]
    taps = FeatureTaps(net, names)
    with taps:
        output = net(x)
    features = taps.pop()
    assert list(features) == names
    sequence, (hidden, cell) = net.lstm(x)
    for name, expected in zip(names, (sequence, hidden, cell, output, output + 2), strict=True):
        torch.testing.assert_close(features[name], expected)


def test_a_part_of_one_call_is_named():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Dictionary()

        def forward(self, x):
            return self.block(self.block(x)["hidden"][0])["out"]

    taps = FeatureTaps(net := Twice(), ["block:0[out]", "block:1[out]"])
    with taps:
        net(torch.zeros(1))
    assert [feature.item() for feature in taps.pop().values()] == [0, 1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lstm", r"lstm.*tuple or list of 2.*'lstm\[0\]'"),
        ("lstm[2]", r"tuple or list of 2.*\[2\]"),
        ("lstm[1]", r"lstm\[1\].*tuple or list of 2"),
        ("block[features]", "mapping of hidden, out.*features"),
        ("lstm[0][0]", "tensor|tuple"),
    ],
)
def test_a_part_that_is_not_there_is_named_with_what_is(name, told):
    taps = FeatureTaps(net := Parts(), [name])
    with taps:
        net(torch.rand(2, 5, 3))
    with pytest.raises(TypeError, match=told):
        taps.pop()


@pytest.mark.parametrize("name", ["block[", "block]out[", "block[out]:0", "[0]"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="name|no layer"):
        FeatureTaps(Parts(), [name])


@pytest.mark.parametrize("stop", [True, False])
def test_several_passes_are_refused_by_naming_the_windows(stop):
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
    taps = FeatureTaps(net, ["0"], stop)

    def capture():
        with taps, torch.no_grad():
            SlidingWindowInferer((8, 8), 1)(torch.rand(1, 1, 16, 16), net)
        taps.pop()

    with pytest.raises(RuntimeError, match=r"ran \d+ times.*windows"):
        capture()
    with taps, torch.no_grad():  # and serve again
        net(torch.rand(1, 1, 8, 8))
    assert taps.pop()["0"].shape == (1, 2, 8, 8)
