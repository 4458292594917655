"""Tiny configurations of the networks of MONAI, and those that are left out with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from monai.networks import nets
from torch import nn

from monai_fetalkd.outputs import OutputPath

__all__ = ["LEFT_OUT", "NETWORKS", "SAME_FORWARD", "Network"]

CLASSES = 3


class Network(NamedTuple):
    """One network, and how it is distilled.

    Attributes:
        task: what its output is: logits of frames, logits of voxels, or values without classes.
        layer: a layer for stage 1; None where it has none with positions.
        build: makes it of a width (1 for the student, 2 for the teacher) and a number of spatial dimensions.
        shape: shape of its input; None takes one channel and 32 (2-D) or 16 (3-D) positions along each axis.
        dims: the numbers of spatial dimensions that are tried.
        output: which part of its output is distilled, where it returns more than one tensor while it trains.
        teacher_output: the same in eval mode.
        needs: module that it cannot be built without.
    """

    task: Literal["frames", "voxels", "values"]
    layer: str | None
    build: Callable[[int, int], nn.Module]
    shape: tuple[int, ...] | None = None
    dims: tuple[int, ...] = (2,)
    output: OutputPath | None = None
    teacher_output: OutputPath | None = None
    needs: str | None = None


def _size(dims: int) -> tuple[int, ...]:
    return (32,) * 2 if dims == 2 else (16,) * dims


_BLOCKS = ["r1_k3_s11_e1_i32_o16_se0.25", "r1_k3_s22_e6_i16_o24_se0.25"]
_HIGH_RES = [
    {"name": "conv_0", "kernel_size": 3},
    {"name": "res_1", "kernels": (3, 3), "repeat": 1},
    {"name": "conv_1", "kernel_size": 1},
]

NETWORKS: dict[str, Network] = {
    # logits of frames
    "Classifier": Network(
        "frames",
        "net.layer_0",
        lambda w, d: nets.Classifier((1, *_size(d)), CLASSES, (4 * w, 8 * w), (2, 2)),
        dims=(2, 3),
    ),
    "DenseNet": Network(
        "frames", "features.denseblock1", lambda w, d: nets.DenseNet(d, 1, CLASSES, 4 * w, 4 * w, (2, 2)), dims=(2, 3)
    ),
    "EfficientNet": Network(
        "frames", "_blocks.1", lambda w, _: nets.EfficientNet(_BLOCKS, 2, 1, CLASSES, 0.25 * w, image_size=32)
    ),
    "MILModel": Network(
        "frames",
        "net.0",
        lambda w, _: nets.MILModel(
            CLASSES,
            "mean",
            False,
            nn.Sequential(nn.Conv2d(1, 4 * w, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            4 * w,
        ),
        (3, 1, 32, 32),
    ),
    "NetAdapter": Network(
        "frames",
        "features.5",
        lambda w, d: nets.NetAdapter(
            nets.ResNet("basic", [1] * 4, [4 * w] * 4, d, 1), CLASSES, d, pool=("adaptiveavg", {"output_size": (1, 1)})
        ),
    ),
    "ResNet": Network(
        "frames",
        "layer2",
        lambda w, d: nets.ResNet("basic", [1] * 4, [4 * w] * 4, d, 1, num_classes=CLASSES),
        dims=(1, 2, 3),
    ),
    "SEResNet50": Network(
        "frames",
        "layer1",
        lambda w, _: nets.SEResNet50((1, 1, 1, w), spatial_dims=2, in_channels=1, num_classes=CLASSES),
    ),
    "ViT": Network(
        "frames",
        "blocks.0",
        lambda w, d: nets.ViT(
            1, _size(d), 8, 8 * w, 8 * w, 2, 2, classification=True, num_classes=CLASSES, spatial_dims=d
        ),
        dims=(2, 3),
        output=0,
        teacher_output=0,
        needs="einops",
    ),
    # logits of voxels
    "AHNet": Network(
        "voxels", "layer1", lambda *_: nets.AHNet((1,) * 4, 2, 1, CLASSES, psp_block_num=0, upsample_mode="bilinear")
    ),
    "AttentionUnet": Network(
        "voxels", "model.0", lambda w, d: nets.AttentionUnet(d, 1, CLASSES, (4 * w, 8 * w), (2,)), dims=(2, 3)
    ),
    "BasicUNet": Network("voxels", "down_1", lambda w, d: nets.BasicUNet(d, 1, CLASSES, (4 * w,) * 6)),
    "BasicUNetPlusPlus": Network(
        "voxels",
        "conv_1_0",
        lambda w, _: nets.BasicUNetPlusPlus(2, 1, CLASSES, (4 * w,) * 6, deep_supervision=True),
        output=-1,
        teacher_output=-1,
    ),
    "DiNTS": Network(
        "voxels",
        "stem_finals.0",
        lambda w, _: nets.DiNTS(
            nets.TopologyInstance(channel_mul=0.1 * w, num_blocks=3, num_depths=2, spatial_dims=2),
            1,
            CLASSES,
            spatial_dims=2,
        ),
    ),
    "DynUNet": Network(
        "voxels",
        "downsamples.0",
        lambda w, d: nets.DynUNet(
            d, 1, CLASSES, [3] * 4, [1, 2, 2, 2], [2] * 3, [4 * w] * 4, deep_supervision=True, deep_supr_num=2
        ),
        dims=(2, 3),
    ),
    "FlexibleUNet": Network(
        "voxels",
        "encoder.layer1",
        lambda w, _: nets.FlexibleUNet(1, CLASSES, "resnet10", False, (8 * w, 8 * w, 8, 8, 4)),
    ),
    "HighResNet": Network(
        "voxels",
        "blocks.1",
        lambda w, d: nets.HighResNet(
            d,
            1,
            CLASSES,
            layer_params=[{**layer, "n_features": 4 * w} for layer in _HIGH_RES]
            + [{"name": "conv_2", "kernel_size": 1}],
        ),
    ),
    "MedNeXt": Network(
        "voxels",
        "enc_stages.1",
        lambda w, d: nets.MedNeXt(
            d, 4 * w, 1, CLASSES, kernel_size=3, deep_supervision=True, blocks_down=(1, 1), blocks_up=(1, 1)
        ),
        output=0,
    ),
    "Quicknat": Network("voxels", "model.0[0]", lambda w, _: nets.Quicknat(CLASSES, 1, 4 * w)),
    "SegResNet": Network(
        "voxels",
        "down_layers.1",
        lambda w, d: nets.SegResNet(d, 8 * w, 1, CLASSES, blocks_down=(1, 1), blocks_up=(1,)),
        dims=(2, 3),
    ),
    "SegResNetDS": Network(
        "voxels",
        "encoder.conv_init",
        lambda w, d: nets.SegResNetDS(d, 4 * w, 1, CLASSES, blocks_down=(1, 1, 1), dsdepth=2),
        dims=(2, 3),
        output=0,
    ),
    "SegResNetDS2": Network(
        "voxels",
        "encoder.conv_init",
        lambda w, d: nets.SegResNetDS2(d, 4 * w, 1, CLASSES, blocks_down=(1, 1, 1), dsdepth=2),
        output=(0, 0),
        teacher_output=(0, 0),
    ),
    "SegResNetVAE": Network(
        "voxels",
        "down_layers.1",
        lambda w, d: nets.SegResNetVAE(
            _size(d),
            vae_nz=4,
            spatial_dims=d,
            init_filters=8 * w,
            in_channels=1,
            out_channels=CLASSES,
            blocks_down=(1, 1),
            blocks_up=(1,),
        ),
        output=0,
    ),
    "SwinUNETR": Network(
        "voxels",
        "encoder1",
        lambda w, d: nets.SwinUNETR(
            1, CLASSES, depths=(1,) * 4, num_heads=(1,) * 4, window_size=2, feature_size=12 * w, spatial_dims=d
        ),
        (1, 64, 64),
        needs="einops",
    ),
    "UNETR": Network(
        "voxels",
        "encoder2",
        lambda w, d: nets.UNETR(1, CLASSES, _size(d), 4 * w, 8 * w, 8 * w, 2, spatial_dims=d),
        dims=(2, 3),
        needs="einops",
    ),
    "UNet": Network("voxels", "model.0", lambda w, d: nets.UNet(d, 1, CLASSES, (4 * w, 8 * w), (2,)), dims=(1, 2, 3)),
    "VNet": Network("voxels", "down_tr32", lambda *_: nets.VNet(2, 1, CLASSES, dropout_dim=2)),
    # values without classes: regression, registration, autoencoders, encoders
    "AutoEncoder": Network(
        "values", "encode.encode_0", lambda w, d: nets.AutoEncoder(d, 1, 1, (4 * w, 8 * w), (2, 2)), dims=(2, 3)
    ),
    "AutoencoderKL": Network(
        "values",
        "encoder.blocks.0",
        lambda w, _: nets.AutoencoderKL(
            2,
            num_res_blocks=1,
            channels=(4 * w, 8 * w),
            attention_levels=(False, False),
            latent_channels=2,
            norm_num_groups=4,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        ),
        output=0,
        teacher_output=0,
    ),
    "EfficientNetBNFeatures": Network(
        "values",
        "_blocks.0",
        lambda w, _: nets.EfficientNetBNFeatures(f"efficientnet-b{w - 1}", False, spatial_dims=2, in_channels=1),
        output=0,
        teacher_output=0,
    ),
    "FullyConnectedNet": Network("values", None, lambda w, _: nets.FullyConnectedNet(16, 2, (8 * w,)), (16,)),
    "GlobalNet": Network("values", "encode_convs.0", lambda w, d: nets.GlobalNet(list(_size(d)), d, 1, 4 * w, 2)),
    "LocalNet": Network("values", "encode_convs.0", lambda w, d: nets.LocalNet(d, 1, 4 * w, (0, 1), out_channels=d)),
    "MaskedAutoEncoderViT": Network(
        "values",
        "decoder_blocks.0",
        lambda w, d: nets.MaskedAutoEncoderViT(
            1, _size(d), 8, 8 * w, 8 * w, 1, 2, 0.75, 8 * w, 8 * w, 1, 2, spatial_dims=d
        ),
        output=0,
        teacher_output=0,
        needs="einops",
    ),
    "RegUNet": Network("values", "encode_convs.0", lambda w, d: nets.RegUNet(d, 1, 4 * w, 2, out_channels=d)),
    "Regressor": Network(
        "values", "net.layer_0", lambda w, d: nets.Regressor((1, *_size(d)), (2,), (4 * w, 8 * w), (2, 2)), dims=(2, 3)
    ),
    "ResNetFeatures": Network(
        "values",
        "layer1",
        lambda w, d: nets.ResNetFeatures("resnet10" if w == 1 else "resnet18", False, d, 1),
        output=0,
        teacher_output=0,
    ),
    "VQVAE": Network(
        "values",
        "encoder.blocks.1",
        lambda w, d: nets.VQVAE(
            d, 1, 1, (4 * w,) * 2, 1, (4 * w,) * 2, ((2, 4, 1, 1),) * 2, ((2, 4, 1, 1, 0),) * 2, 8, 4, ddp_sync=False
        ),
        output=0,
        teacher_output=0,
    ),
    "VarAutoEncoder": Network(
        "values",
        "encode.encode_0",
        lambda w, d: nets.VarAutoEncoder(d, (1, *_size(d)), 1, 4, (4 * w, 8 * w), (2, 2)),
        output=0,
        teacher_output=0,
    ),
    "VarFullyConnectedNet": Network(
        "values",
        None,
        lambda w, _: nets.VarFullyConnectedNet(16, 2, 4, (8 * w,), (8 * w,)),
        (16,),
        output=0,
        teacher_output=0,
    ),
    "ViTAutoEnc": Network(
        "values",
        "blocks.0",
        lambda w, d: nets.ViTAutoEnc(1, _size(d), 4, 1, 4, 8 * w, 8 * w, 1, 2, spatial_dims=d),
        output=0,
        teacher_output=0,
        needs="einops",
    ),
    "VoxelMorphUNet": Network(
        "values",
        "net.0.1.submodule.0",
        lambda w, _: nets.VoxelMorphUNet(2, 2, 4, (4 * w,) * 4, (4 * w,) * 2),
        (2, 32, 32),
    ),
}

# configurations of a network above, which run the same code
SAME_FORWARD = {
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264"), "DenseNet"),
    **dict.fromkeys(("SENet", "SENet154", "SEResNet101", "SEResNet152", "SEResNext50", "SEResNext101"), "SEResNet50"),
    "EfficientNetBN": "EfficientNet",
    "EfficientNetEncoder": "EfficientNetBNFeatures",
    "ResNetEncoder": "ResNetFeatures",
}

_BLOCK = "a block of other networks"
_GAN = "a part of a generative adversarial network"
_DIFFUSION = "takes a time step of diffusion"

LEFT_OUT = {
    **dict.fromkeys(
        ("BertAttention", "BertMixedLayer", "BertOutput", "BertPreTrainedModel", "MultiModal", "Pooler"), _BLOCK
    ),
    **dict.fromkeys(("HighResBlock", "PatchMerging", "PatchMergingV2", "ResNetBlock", "ResNetBottleneck"), _BLOCK),
    **dict.fromkeys(("TopologyConstruction", "TopologyInstance", "TopologySearch"), _BLOCK),
    **dict.fromkeys(
        ("Critic", "Discriminator", "Generator", "MultiScalePatchDiscriminator", "PatchDiscriminator"), _GAN
    ),
    **dict.fromkeys(("ControlNet", "DiffusionModelUNet", "SPADEDiffusionModelUNet"), _DIFFUSION),
    **dict.fromkeys(("DAF3D", "TorchVisionFCModel"), "needs torchvision, which the project does not install"),
    "DecoderOnlyTransformer": "takes indices of tokens",
    "HoVerNet": "of one size, too large for a test; its output is that of tests/test_outputs.py",
    "HyenaNDUNETR": "needs nvsubquadratic, which the project does not install",
    "NaViT": "takes a list of images",
    "SPADEAutoencoderKL": "takes an image and a segmentation",
    "SPADENet": "takes an image and a segmentation",
    "Transchex": "takes an image and a text",
    "VISTA3D": "takes an image and prompts",
    "VoxelMorph": "takes two images",
}
