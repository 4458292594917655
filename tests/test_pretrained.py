from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_fetalkd.networks import PretrainedNetwork, activation_layers, layer_decay, student_resnet, teacher_resnet
from monai_fetalkd.taps import FeatureTaps


class Bottleneck(nn.Module):
    """An inverted bottleneck, whose output no activation bounds."""

    def __init__(self, channels, stride):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, 4 * channels, 3, stride, 1), nn.BatchNorm2d(4 * channels))
        self.act = nn.SiLU()
        self.project = nn.Sequential(nn.Conv2d(4 * channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x):
        return self.project(self.act(self.expand(x)))


def bottlenecks():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1), *(Bottleneck(4, 2) for _ in range(3)), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class TestActivationLayers:
    def test_linear_bottlenecks_are_passed_over(self):
        assert activation_layers(bottlenecks(), (1, 32, 32), count=3) == ["1.act", "2.act", "3.act"]

    @pytest.mark.parametrize(
        "build", [lambda: student_resnet(4), lambda: teacher_resnet(18), lambda: teacher_resnet(50)]
    )
    def test_a_residual_network_has_its_own_layers(self, build):
        assert activation_layers(build(), (1, 64, 64)) == ["layer1", "layer2", "layer3", "layer4"]

    def test_the_network_is_left_as_it_was(self):
        network = bottlenecks().train()
        network[1].eval()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        activation_layers(network, (1, 32, 32), count=2)
        assert network[2].training
        assert not network[1].training
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert not any(module._forward_hooks for module in network.modules())

    def test_too_few_resolutions_are_refused(self):
        with pytest.raises(ValueError, match=r"3 resolutions.*not 4.*teacher_layers"):
            activation_layers(bottlenecks(), (1, 32, 32), count=4)


NAMES = ["test_resnet", "test_efficientnet"]  # the small models that timm has for tests


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


class TestPretrainedNetwork:
    @pytest.mark.parametrize("name", [*NAMES, "test_vit"])
    def test_frames_of_any_size_give_a_logit_for_each_class(self, timm, name):
        network = PretrainedNetwork(name, num_classes=3, weights=False, size=(160, 160)).eval()
        assert network(torch.rand(2, 1, 96, 128)).shape == (2, 3)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_grey_frame_has_the_features_of_the_grey_image_that_it_was_pretrained_on(self, timm, name, tmp_path):
        original = timm.create_model(name).eval()
        torch.save(original.state_dict(), tmp_path / "weights.pth")
        network = PretrainedNetwork(name, num_classes=3, weights=tmp_path / "weights.pth").eval()
        frames = torch.rand(2, 1, 64, 64)
        mean, std = (sum(original.pretrained_cfg[key]) / 3 for key in ("mean", "std"))
        with torch.no_grad():
            expected = original.forward_features(((frames - mean) / std).expand(-1, 3, -1, -1))
            found = network.network.forward_features((frames - network.mean) / network.std)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    def test_its_new_classifier_is_quiet(self, timm, tmp_path):
        torch.save(timm.create_model(NAMES[0]).state_dict(), tmp_path / "weights.pth")
        network = PretrainedNetwork(NAMES[0], num_classes=3, weights=tmp_path / "weights.pth").eval()
        assert network(torch.rand(4, 1, 64, 64)).abs().max() < 1

    def test_a_missing_file_is_named(self, timm, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.pth"):
            PretrainedNetwork(NAMES[0], num_classes=3, weights=tmp_path / "none.pth")

    @pytest.mark.parametrize("name", NAMES)
    def test_its_layers_can_be_tapped(self, timm, name):
        network = PretrainedNetwork(name, num_classes=3, weights=False)
        layers = activation_layers(network, (1, 128, 128))
        with FeatureTaps(network, layers) as taps:
            network.eval()(torch.rand(1, 1, 128, 128))
        sides = [feature.shape[-1] for feature in taps.pop().values()]
        assert sides == sorted(set(sides), reverse=True)

    def test_rates_fall_towards_the_input_and_all_parameters_have_one(self, timm):
        network = PretrainedNetwork(NAMES[0], num_classes=3, weights=False)
        head, other = network.network.get_classifier(), nn.Parameter(torch.zeros(1))
        optimizer = layer_decay(network, decay=0.5)([*network.parameters(), other], lr=0.1)
        rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        assert rates.keys() == {id(other), *map(id, network.parameters())}
        assert rates[id(head.weight)] == rates[id(other)] == 0.1
        first = next(network.parameters())
        assert rates[id(first)] == min(rates.values()) < 0.1
