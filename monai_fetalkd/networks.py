"""Teacher and student networks.

Both are :class:`monai.networks.nets.ResNet` with the stem and shortcuts of torchvision's ResNet, so that parameter
names and arithmetic agree with it: a stem of stride 2 (MONAI's default of 1 costs four times the arithmetic) and
projection shortcuts without bias (MONAI's ``shortcut_type="A"`` cuts the gradient of the shortcut).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from monai.networks.nets import ResNet

from monai_fetalkd.utils.checkpoints import copy_weights, fit_names, read_state_dict

__all__ = ["load_imagenet_weights", "student_resnet", "teacher_resnet"]

_TEACHERS = {18: ("basic", (2, 2, 2, 2)), 34: ("basic", (3, 4, 6, 3)), 50: ("bottleneck", (3, 4, 6, 3))}


def teacher_resnet(
    depth: int = 50,
    num_classes: int = 6,
    in_channels: int = 1,
    spatial_dims: int = 2,
    imagenet_weights: str | PathLike[str] | None = None,
) -> ResNet:
    """A ResNet-18, -34 or -50 of full width (He et al. 2016, arXiv:1512.03385).

    Args:
        depth: 18, 34 or 50 layers (11.2, 21.3 or 23.5 million parameters with one input channel and six classes).
        num_classes: number of logits.
        in_channels: channels of the input image.
        spatial_dims: 1, 2 or 3.
        imagenet_weights: local file of a torchvision ResNet state dict of the same depth to start from, see
            :func:`load_imagenet_weights`.

    Returns:
        A network from ``[N, in_channels, *spatial]`` to logits ``[N, num_classes]``, with layers named ``layer1`` to
        ``layer4`` to tap.

    Raises:
        ValueError: for another depth, or weights that do not fit.

    Example:
        >>> import torch
        >>> network = teacher_resnet(depth=18, num_classes=6)
        >>> network(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 6])
    """
    if depth not in _TEACHERS:
        raise ValueError(f"depth is {depth}, but a teacher has 18, 34 or 50 layers.")
    block, layers = _TEACHERS[depth]
    network = _resnet(block, layers, 64, num_classes, in_channels, spatial_dims)
    if imagenet_weights is not None:
        load_imagenet_weights(network, imagenet_weights)
    return network


def student_resnet(
    width: int = 16,
    layers: Sequence[int] = (2, 2, 2, 2),
    num_classes: int = 6,
    in_channels: int = 1,
    spatial_dims: int = 2,
) -> ResNet:
    """A slim ResNet of basic blocks, with ``width, 2 width, 4 width, 8 width`` channels.

    ===== ============ ========== ======================================
    width layers       parameters multiply-accumulates at 1 x 224 x 224
    ===== ============ ========== ======================================
    8     (1, 1, 1, 1) 0.08 M     0.017 G
    8     (2, 2, 2, 2) 0.18 M     0.031 G
    16    (2, 2, 2, 2) 0.70 M     0.116 G
    32    (2, 2, 2, 2) 2.80 M     0.444 G
    ===== ============ ========== ======================================

    Args:
        width: channels of the stem and the first layer; 64 is the ordinary ResNet-18.
        layers: number of blocks in each of the four layers.
        num_classes: number of logits.
        in_channels: channels of the input image.
        spatial_dims: 1, 2 or 3.

    Returns:
        A network from ``[N, in_channels, *spatial]`` to logits ``[N, num_classes]``, with the teacher's layer names.

    Raises:
        ValueError: for a width below 1 or other than four layers of at least one block.

    Example:
        >>> network = student_resnet(width=16)
        >>> sum(p.numel() for p in network.parameters())
        701302
    """
    if width < 1:
        raise ValueError(f"width is {width}, but a layer needs at least one channel.")
    if len(layers) != 4 or min(layers) < 1:
        raise ValueError(f"layers is {tuple(layers)}, but a ResNet has four layers of at least one block.")
    return _resnet("basic", layers, width, num_classes, in_channels, spatial_dims)


def _resnet(
    block: str, layers: Sequence[int], width: int, num_classes: int, in_channels: int, spatial_dims: int
) -> ResNet:
    return ResNet(
        block=block,
        layers=list(layers),
        block_inplanes=[width, 2 * width, 4 * width, 8 * width],
        spatial_dims=spatial_dims,
        n_input_channels=in_channels,
        num_classes=num_classes,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
    )


def load_imagenet_weights(network: ResNet, path: str | PathLike[str]) -> None:
    """Start a 2-D ResNet from a torchvision ImageNet state dict, whatever its input channels and classes.

    ImageNet images have three channels. For another number, the first convolution is summed over its input channels and
    divided among the new ones, which gives a grey frame the response that it would have as a grey RGB image (up to
    ImageNet's normalisation of intensities, which differs slightly by channel). The classifier ``fc`` is left out.

    Args:
        network: a teacher (or student of width 64) with the layers of the torchvision network.
        path: local file with the state dict, as ``torchvision.models.resnet50(...).state_dict()`` gives it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is no state dict, or layers other than ``fc`` do not match; the message lists them and
            the network stays as it was.
    """
    own = network.state_dict()
    weights = fit_names(read_state_dict(path), own)
    weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    channels = own["conv1.weight"].shape[1]
    if "conv1.weight" in weights and weights["conv1.weight"].shape[1] != channels:
        weights["conv1.weight"] = weights["conv1.weight"].sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels
    weights.update({name: value for name, value in own.items() if name.startswith("fc.")})
    copy_weights(network, weights, path)
