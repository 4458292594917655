from __future__ import annotations

import pytest
import torch
from monai.networks.nets import ResNet
from torch import nn

from monai_fetalkd.networks import load_imagenet_weights, student_resnet, teacher_resnet


@pytest.mark.parametrize(("depth", "millions"), [(18, 11.17), (34, 21.28), (50, 23.51)])
def test_teacher_has_the_size_of_its_depth(depth, millions):
    network = teacher_resnet(depth)
    assert isinstance(network, ResNet)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(
    ("width", "layers", "millions"),
    [(8, (1, 1, 1, 1), 0.078), (8, (2, 2, 2, 2), 0.176), (16, (2, 2, 2, 2), 0.701), (32, (2, 2, 2, 2), 2.797)],
)
def test_students_span_from_under_a_fifth_to_three_million_parameters(width, layers, millions):
    network = student_resnet(width, layers)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.001)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("factory", [lambda **k: teacher_resnet(18, **k), lambda **k: student_resnet(4, **k)])
def test_networks_take_any_dimension_channels_and_classes(factory, dims):
    network = factory(num_classes=3, in_channels=2, spatial_dims=dims).eval()
    assert network(torch.rand(2, 2, *(32,) * dims)).shape == (2, 3)


def test_gradient_reaches_the_first_layer_through_every_shortcut():
    network = student_resnet(4)
    # silence the residual branches: only the shortcuts are left to carry the gradient
    for name, module in network.named_modules():
        if name.endswith("bn2"):
            nn.init.zeros_(module.weight)
    network(torch.rand(2, 1, 32, 32)).square().sum().backward()
    assert network.conv1.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: teacher_resnet(101), "depth is 101"),
        (lambda: student_resnet(0), "width is 0"),
        (lambda: student_resnet(8, (2, 2, 2)), r"layers is \(2, 2, 2\)"),
        (lambda: student_resnet(8, (2, 0, 2, 2)), r"layers is \(2, 0, 2, 2\)"),
    ],
)
def test_impossible_sizes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def imagenet_state_dict(depth):
    """Names and shapes as in torchvision: three channels, a thousand classes."""
    return teacher_resnet(depth, num_classes=1000, in_channels=3).state_dict()


@pytest.mark.parametrize("depth", [18, 50])
def test_imagenet_weights_answer_a_grey_frame_as_its_rgb_copy(tmp_path, depth):
    torch.manual_seed(0)
    rgb_network = teacher_resnet(depth, num_classes=1000, in_channels=3).eval()
    torch.save(rgb_network.state_dict(), tmp_path / "resnet.pth")
    grey_network = teacher_resnet(depth, num_classes=6, imagenet_weights=tmp_path / "resnet.pth").eval()
    grey = torch.rand(1, 1, 64, 64)
    rgb_network.fc, grey_network.fc = nn.Identity(), nn.Identity()
    torch.testing.assert_close(grey_network(grey), rgb_network(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_imagenet_weights_of_another_depth_are_refused_with_what_differs(tmp_path):
    torch.save(imagenet_state_dict(18), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"resnet18.pth.*layer1.2.conv1.weight is missing.*and \d+ more"):
        load_imagenet_weights(teacher_resnet(34), tmp_path / "resnet18.pth")
