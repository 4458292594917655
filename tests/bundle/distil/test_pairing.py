from __future__ import annotations

import monai.networks.nets as nets
import pytest
import torch
from torch import nn

from monai_fetalkd.bundle.distil.pairing import pair_layers
from monai_fetalkd.bundle.plan import check_layers
from monai_fetalkd.losses import AttentionTransferLoss

UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (4, 8, 16), "strides": (2, 2)}
DYNUNET = {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 16]}


@pytest.mark.parametrize(
    ("make", "image_shape", "layers"),
    [
        (
            lambda: nets.UNet(**UNET, num_res_units=1),
            (1, 32, 32),
            ["model.0", "model.1.submodule.1.submodule", "model.1.submodule"],
        ),
        (
            lambda: nets.SegResNet(2, 8, 1, 2, blocks_down=(1, 1, 1), blocks_up=(1, 1)),
            (1, 32, 32),
            ["down_layers.0", "down_layers.1", "down_layers.2", "up_layers.0", "up_layers.1"],
        ),
        (
            lambda: nets.DynUNet(2, 1, 2, **DYNUNET),
            (1, 32, 32),
            ["input_block", "downsamples.0", "bottleneck", "skip_layers.next_layer", "skip_layers"],
        ),
        (
            lambda: nets.ResNet("basic", [1] * 4, [4] * 4, 2, 1),
            (1, 64, 64),
            ["act", "layer1", "layer2", "layer3", "layer4"],
        ),
        (
            lambda: nets.DenseNet121(2, 1, 2, 8, 4),
            (1, 64, 64),
            [
                "features.relu0",
                "features.denseblock1",
                "features.denseblock2",
                "features.denseblock3",
                "class_layers.relu",
            ],
        ),
    ],
)
def test_the_last_layer_of_each_resolution_is_paired(make, image_shape, layers):
    student, teacher = make(), make()
    assert pair_layers(student, teacher, image_shape) == [(layer, layer) for layer in layers]
    names = {"student": (student, layers), "teacher": (teacher, layers)}
    check_layers(names, image_shape, AttentionTransferLoss())  # all of them can be tapped and compared


def test_networks_of_two_kinds_are_paired_where_their_sizes_agree():
    pairs = pair_layers(nets.UNet(**UNET), nets.BasicUNet(2, 1, 2, [4] * 6), (1, 32, 32))
    assert ("model.0", "down_1") in pairs  # 16 x 16
    assert ("model.1.submodule.1.submodule", "down_2") in pairs  # 8 x 8, the last


def test_shapes_are_enough():
    network = nets.BasicUNet(3, 1, 2, [4] * 6)
    on_cpu = pair_layers(network, network, (1, 32, 32, 32))
    assert pair_layers(network.to("meta"), network.to("meta"), (1, 32, 32, 32)) == on_cpu


def test_a_layer_whose_output_is_overwritten_is_left_out():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 2)
    )
    assert pair_layers(network, network, (1, 8, 8)) == [("2", "2")]


def test_networks_without_a_size_in_common_are_refused():
    one, other = (nn.Sequential(nn.Conv2d(1, 2, 3, stride), nn.Flatten()) for stride in (1, 3))
    with pytest.raises(ValueError, match="no layers of the same size"):
        pair_layers(nn.Sequential(*one, nn.LazyLinear(2)), nn.Sequential(*other, nn.LazyLinear(2)), (1, 8, 8))


def test_the_networks_are_left_as_they_were():
    network = nets.BasicUNet(2, 1, 2, [4] * 6)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pair_layers(network, network, (1, 32, 32))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in network.modules())
