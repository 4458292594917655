from __future__ import annotations

import monai.networks.nets as nets
import pytest
import torch

from monai_fetalkd.bundle.distil.widths import UnknownWidthError, reduced_arguments

VOXELS = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}


@pytest.mark.parametrize(
    ("network", "arguments", "changed"),
    [
        (nets.UNet, {**VOXELS, "channels": [16, 32], "strides": [2]}, {"channels": [8, 16]}),
        (nets.AttentionUnet, {**VOXELS, "channels": [16, 32], "strides": [2]}, {"channels": [8, 16]}),
        (nets.BasicUNet, VOXELS, {"features": [16, 16, 32, 64, 128, 16]}),
        (nets.SegResNet, {**VOXELS, "init_filters": 32}, {"init_filters": 16}),
        (nets.SegResNet, {**VOXELS, "init_filters": 24}, {"init_filters": 16}),  # groups of eight
        (nets.SegResNetDS, VOXELS, {"init_filters": 16}),
        (nets.DenseNet121, VOXELS, {"init_features": 32, "growth_rate": 16}),
        (nets.SEResNet50, {"spatial_dims": 2, "in_channels": 1}, {"layers": [2, 2, 3, 2]}),
        (nets.resnet18, {"spatial_dims": 2, "n_input_channels": 1}, {"widen_factor": 0.5}),
        (nets.resnet18, {"spatial_dims": 2, "n_input_channels": 1, "widen_factor": 1}, {"widen_factor": 0.5}),
        (nets.TopologyInstance, {"channel_mul": 1, "num_blocks": 1, "num_depths": 2}, {"channel_mul": 0.5}),
        (
            nets.DynUNet,
            {**VOXELS, "kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]},
            {"filters": [16, 32, 64]},
        ),
        (
            nets.FlexibleUNet,
            {"in_channels": 1, "out_channels": 2, "backbone": "efficientnet-b2"},
            {"backbone": "efficientnet-b0", "decoder_channels": [128, 64, 32, 16, 8]},
        ),
        (nets.SwinUNETR, {**VOXELS, "feature_size": 48}, {"feature_size": 24}),
        (nets.SwinUNETR, {**VOXELS, "feature_size": 36}, {"feature_size": 24}),  # a multiple of twelve
        (
            nets.ViT,
            {"in_channels": 1, "img_size": 32, "patch_size": 16, "spatial_dims": 2, "num_heads": 6, "hidden_size": 42},
            {"hidden_size": 24, "mlp_dim": 1536},  # a multiple of the heads
        ),
    ],
)
def test_a_network_of_half_the_width_can_be_made(network, arguments, changed):
    result = reduced_arguments(network, arguments, 2)
    assert result == changed
    large = network(**arguments)
    small = network(**{**arguments, **result})
    sizes = [sum(value.numel() for value in one.parameters()) for one in (small, large)]
    assert sizes[0] <= sizes[1]


def test_a_reduction_that_leaves_no_channel_is_refused():
    with pytest.raises(ValueError, match="no channel.*'channels'"):
        reduced_arguments(nets.UNet, {"channels": [16, 32]}, 32)


@pytest.mark.parametrize(
    ("network", "arguments", "reduce"),
    [
        (nets.UNet, {"channels": [16, 32]}, 1.001),
        (nets.SegResNet, {**VOXELS, "init_filters": 8}, 2),  # groups of eight, and one is left
        (nets.EfficientNetBN, {"model_name": "efficientnet-b0"}, 2),
    ],
)
def test_a_reduction_that_changes_nothing_is_refused(network, arguments, reduce):
    with pytest.raises(ValueError, match="as it is"):
        reduced_arguments(network, arguments, reduce)


@pytest.mark.parametrize("reduce", [1, 0.5, 0, -2])
def test_a_student_is_smaller(reduce):
    with pytest.raises(ValueError, match="--reduce"):
        reduced_arguments(nets.UNet, {"channels": [16, 32]}, reduce)


def test_a_network_whose_width_is_unknown_is_refused():
    with pytest.raises(UnknownWidthError, match="Linear.*--student"):
        reduced_arguments(torch.nn.Linear, {}, 2)
