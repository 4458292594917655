from __future__ import annotations

import contextlib
import copy
import pickle
import weakref

import pytest
import torch
from monai.networks.nets import ResNet
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_fetalkd.taps import FeatureTaps

STEM = ["conv1", "bn1", "act", "maxpool"]


def small_resnet(dims=2):
    torch.manual_seed(0)
    return ResNet("basic", [1, 1, 1, 1], [4, 4, 8, 8], spatial_dims=dims, n_input_channels=1, num_classes=3)


def frames(dims=2):
    return torch.randn(4, 1, *(16,) * dims, generator=torch.Generator().manual_seed(1))


@contextlib.contextmanager
def names_called(network):
    """The children of the network that run, in their order."""
    called = []
    hooks = [
        child.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, child in network.named_children()
    ]
    yield called
    for hook in hooks:
        hook.remove()


def tapped(network, layers, x, stop=True):
    taps = FeatureTaps(network, layers, stop=stop)
    with taps:
        network(x)
    return taps.pop()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["layer1"], [*STEM, "layer1"]),
        (["layer3", "layer1"], [*STEM, "layer1", "layer2", "layer3"]),
        (["layer2.0.conv1"], [*STEM, "layer1", "layer2"]),
    ],
)
def test_no_layer_runs_after_the_last_that_is_named(dims, layers, expected):
    network = small_resnet(dims)
    with names_called(network) as called:
        tapped(network, layers, frames(dims))
    assert called == expected


@pytest.mark.parametrize("training", [True, False])
def test_features_and_gradients_are_those_of_the_whole_forward_pass(training):
    whole, stopped = small_resnet().train(training), small_resnet().train(training)
    features = [
        tapped(whole, ["layer3", "layer1"], frames(), stop=False),
        tapped(stopped, ["layer3", "layer1"], frames()),
    ]
    assert list(features[1]) == ["layer3", "layer1"]
    torch.testing.assert_close(features[1], features[0], rtol=0, atol=0)
    for network_features in features:
        sum(feature.square().sum() for feature in network_features.values()).backward()
    for (name, parameter), expected in zip(stopped.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=0, atol=0, msg=name)


def test_the_module_returns_the_features_in_place_of_its_output():
    network, x = small_resnet(), frames()
    taps = FeatureTaps(network, ["layer2", "layer1"], stop=True)
    with taps:
        returned = network(x)
    features = taps.pop()
    assert list(returned) == ["layer2", "layer1"]
    assert all(returned[name] is features[name] for name in features)


def test_the_batch_statistics_of_later_layers_stay():
    network = small_resnet()
    tapped(network, ["layer1"], frames())
    assert network.layer1[0].bn1.num_batches_tracked == 1
    assert network.layer2[0].bn1.num_batches_tracked == 0


def test_a_layer_that_runs_twice_stops_at_the_call_that_is_named():
    network, x = small_resnet(), frames()
    for layers in (["layer1.0.act:0"], ["layer1.0.act:1"], ["layer1.0.act:0", "layer1.0.act:1"]):
        torch.testing.assert_close(tapped(network, layers, x), tapped(network, layers, x, stop=False))
    with names_called(network.layer1[0]) as called:
        tapped(network, ["layer1.0.act:0"], x)
    assert called == ["conv1", "bn1", "act"]


def test_without_stop_the_module_runs_to_its_end():
    network, x = small_resnet().eval(), frames()
    with FeatureTaps(network, ["layer1"]):
        logits = network(x)
    torch.testing.assert_close(logits, network(x))


def test_after_the_block_the_module_is_as_before():
    network, x = small_resnet().eval(), frames()
    expected = network(x)
    before = {name: dict(vars(module)) for name, module in network.named_modules()}
    tapped(network, ["layer2"], x)
    assert {name: vars(module) for name, module in network.named_modules()} == before
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_of_ones_own_is_not_swallowed(error):
    def fail(*_):
        raise error("mine")

    network = small_resnet()
    hook = network.layer2.register_forward_pre_hook(fail)
    taps = FeatureTaps(network, ["layer1", "layer2"], stop=True)
    with pytest.raises(error, match="mine"), taps:
        network(frames())
    with pytest.raises(RuntimeError, match="nothing captured at 'layer1', 'layer2'"):
        taps.pop()
    hook.remove()
    with taps:
        network(frames())
    assert list(taps.pop()) == ["layer1", "layer2"]


def test_a_network_that_handles_errors_does_not_hold_up_the_stop():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x):
            try:
                x = self.first(x)
            except Exception:
                pytest.fail("the stop was taken for an error")
            return self.second(x)

    assert tapped(Careful(), ["first"], torch.ones(1))["first"] == 1


def test_a_layer_that_does_not_run_is_named_as_ever():
    network = small_resnet()
    network.spare = nn.Identity()
    with pytest.raises(RuntimeError, match="nothing captured at 'spare'"):
        tapped(network, ["layer1", "spare"], frames())


def test_of_two_blocks_each_stops_for_itself():
    network, other, x = small_resnet(), small_resnet(), frames()
    outer, inner = FeatureTaps(network, ["layer2"], stop=True), FeatureTaps(other, ["layer1"], stop=True)
    with outer:
        with inner:
            other(x)
        network(x)
    assert list(outer.pop()) == ["layer2"]
    assert list(inner.pop()) == ["layer1"]

    inner = FeatureTaps(network, ["layer3"], stop=True)
    with outer, inner:  # the outer stops first, so that the inner one's layer does not run
        network(x)
    assert list(outer.pop()) == ["layer2"]
    with pytest.raises(RuntimeError, match="nothing captured at 'layer3'"):
        inner.pop()


def test_nothing_stays_alive_once_the_features_are_dropped():
    network, x = small_resnet(), frames().requires_grad_()
    features = tapped(network, ["layer2"], x)
    feature, image = weakref.ref(features["layer2"]), weakref.ref(x)
    del features, x
    assert feature() is None
    assert image() is None


CLONES = [copy.deepcopy, lambda original: pickle.loads(pickle.dumps(original))]


@pytest.mark.parametrize("clone", CLONES)
def test_a_copy_of_the_module_made_inside_the_block_runs_to_its_end(clone):
    network, x = small_resnet().eval(), frames()
    expected = network(x)
    with FeatureTaps(network, ["layer1"], stop=True):
        twin = clone(network)
        torch.testing.assert_close(twin(x), expected)


@pytest.mark.parametrize("clone", CLONES)
def test_a_copy_of_the_taps_stops_too(clone):
    twin, taps = clone((network := small_resnet(), FeatureTaps(network, ["layer1"], stop=True)))
    with names_called(twin) as called, taps:
        twin(frames())
    assert called[-1] == "layer1"


def test_a_checkpointed_layer_is_recomputed_as_far_as_needed():
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            for layer in self:
                x = checkpoint(layer, x, use_reentrant=False)
            return x

    x = torch.randn(4, 3)
    network = Checkpointed(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Tanh()), nn.Linear(3, 1))
    plain = nn.Sequential(*copy.deepcopy(network))
    tapped(network, ["0", "1.0"], x)["1.0"].square().sum().backward()
    plain[1][0](plain[0](x)).square().sum().backward()
    for parameter, expected in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


def compile_in_place(network, **options):
    network.compile(**options)
    return network


@pytest.mark.parametrize("compiled", [torch.compile, compile_in_place])
@pytest.mark.parametrize("early", [True, False])
def test_a_compiled_module_runs_to_its_end(compiled, early):
    torch.compiler.reset()
    network, x = small_resnet().eval(), frames()
    expected = network(x)
    features = tapped(network, ["layer1"], x)
    taps = FeatureTaps(network, ["layer1"], stop=True) if early else None
    compiled_network = compiled(network, backend="eager", fullgraph=True)
    taps = taps or FeatureTaps(compiled_network, ["layer1"], stop=True)
    for _ in range(2):
        with taps:
            logits = compiled_network(x)
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(taps.pop(), features)


@pytest.mark.usefixtures("process_group")
def test_a_distributed_module_exchanges_the_gradients_of_the_layers_that_ran():
    network, twin, x = small_resnet(), small_resnet(), frames()
    wrapped = nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
    exchanged: list[torch.Tensor] = []
    wrapped.register_comm_hook(exchanged, note_bucket)
    taps = FeatureTaps(wrapped, ["layer1"], stop=True)
    for _ in range(2):  # a reduction that is not finished fails in the next forward pass
        for module, module_taps in ((wrapped, taps), (twin, FeatureTaps(twin, ["layer1"], stop=True))):
            module.zero_grad()
            with module_taps:
                module(x)
            module_taps.pop()["layer1"].square().sum().backward()
    assert len(exchanged) == 2
    torch.testing.assert_close(network.conv1.weight.grad, twin.conv1.weight.grad)
    assert network.layer2[0].conv1.weight.grad is None


def note_bucket(exchanged, bucket):
    exchanged.append(bucket.buffer())
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future
