"""Teacher and student networks.

Both are :class:`monai.networks.nets.ResNet` with the stem and shortcuts of torchvision's ResNet, so that parameter
names and arithmetic agree with it: a stem of stride 2 (MONAI's default of 1 costs four times the arithmetic) and
projection shortcuts without bias (MONAI's ``shortcut_type="A"`` cuts the gradient of the shortcut).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from os import PathLike

import torch
from monai.networks.nets import ResNet
from monai.utils import optional_import
from torch import Tensor, nn
from torch.nn import functional

from monai_fetalkd.utils.checkpoints import copy_weights, fit_names, read_state_dict

__all__ = [
    "PretrainedNetwork",
    "activation_layers",
    "layer_decay",
    "load_imagenet_weights",
    "student_resnet",
    "teacher_resnet",
]

_LOWEST_ACTIVATION = -0.4  # below the minimum of all common activations
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


class PretrainedNetwork(nn.Module):
    r"""A 2-D network of timm by name, pretrained, for frames of intensities 0 to 1.

    Its input is brought to what it was pretrained on: :math:`(x - \mu) / \sigma` with the mean and standard deviation
    that timm states for the weights (for one input channel their means over the three), after a bilinear resize to
    ``size`` where one is given. With one input channel the first convolution is summed over its three, which answers a
    grey frame as it would a grey RGB image. The classifier is new.

    Args:
        name: model name of timm, such as ``"tf_efficientnet_lite0"`` or ``"resnet50.a1_in1k"``.
        num_classes: number of logits.
        in_channels: channels of the input.
        weights: local file of the model's state dict as timm has it; True fetches it by name; False starts anew, as a
            network does whose trained weights are loaded afterwards.
        size: height and width that the network works at; None takes frames as they come.
        dropout: of the features before the classifier.

    Raises:
        OptionalImportError: when timm is not installed (``pip install "monai-fetalkd[pretrained]"``).
        FileNotFoundError: when there is no such file of weights.
        RuntimeError: when timm has no such model, or the weights do not fit.

    Example:
        >>> network = PretrainedNetwork("tf_efficientnet_lite0", num_classes=6, weights=False)  # doctest: +SKIP
        >>> network(torch.rand(1, 1, 128, 128)).shape  # doctest: +SKIP
        torch.Size([1, 6])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        num_classes: int,
        in_channels: int = 1,
        weights: str | PathLike[str] | bool = True,
        size: Sequence[int] | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        overlay = None
        if not isinstance(weights, bool):
            read_state_dict(weights)  # says what is wrong with a file better than timm does
            overlay = {"file": str(weights)}
        timm, _ = optional_import("timm")
        self.network: nn.Module = timm.create_model(
            name,
            pretrained=bool(weights),
            pretrained_cfg_overlay=overlay,
            in_chans=in_channels,
            num_classes=num_classes,
            drop_rate=dropout,
        )
        classifier = self.network.get_classifier()
        if weights and isinstance(classifier, (nn.Linear, nn.Conv2d)):
            # what timm draws is made for training from scratch: here its loud logits would shake the pretrained layers
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]
        self.size = None if size is None else tuple(size)
        stated = self.network.pretrained_cfg
        for buffer in ("mean", "std"):
            values = torch.tensor(stated[buffer])
            values = values if in_channels == len(values) else values.mean().repeat(in_channels)
            self.register_buffer(buffer, values.view(1, -1, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits ``[N, num_classes]`` of frames ``[N, in_channels, H, W]``."""
        if self.size is not None and tuple(frames.shape[2:]) != self.size:
            frames = functional.interpolate(frames, self.size, mode="bilinear", antialias=True)
        return self.network((frames - self.mean) / self.std)


def layer_decay(
    network: PretrainedNetwork, decay: float = 0.75, weight_decay: float = 0.05
) -> Callable[..., torch.optim.Optimizer]:
    """Fine-tuning with a rate that falls by a factor from each group of layers to the one before it.

    The layers near the input, which pretraining has taught most that is of general use, move least (Howard & Ruder
    2018, arXiv:1801.06146; Bao et al. 2022, arXiv:2106.08254). Groups are those of timm for this network.

    Args:
        network: the network to fine-tune.
        decay: the factor, above 0 and up to 1.
        weight_decay: weight decay of AdamW; biases and normalisation have none.

    Returns:
        For :class:`~monai_fetalkd.bundle.stages.StageSettings`: called with parameters and ``lr``, gives AdamW.
        Parameters that are not the network's get the full rate.
    """

    def optimizer(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        timm_optim, _ = optional_import("timm.optim")
        groups = timm_optim.param_groups_layer_decay(network.network, weight_decay=weight_decay, layer_decay=decay)
        for group in groups:
            group["lr"] = lr * group.pop("lr_scale")
        grouped = {id(parameter) for group in groups for parameter in group["params"]}
        if others := [parameter for parameter in parameters if id(parameter) not in grouped]:
            groups.append({"params": others, "weight_decay": weight_decay})
        return torch.optim.AdamW(groups, lr=lr)

    return optimizer


def activation_layers(network: nn.Module, image_shape: Sequence[int], count: int = 4) -> list[str]:
    """Find layers to tap: at each of the last ``count`` resolutions, the last activation of the outermost modules.

    What is told from frames of noise, while batch normalisation normalises: activations are bounded below (ReLU at 0,
    SiLU at -0.28, Hardswish at -0.375), the outputs of convolutions and normalisations are not. So linear bottlenecks,
    whose squares are no attention, are passed over. Modules that are called more than once cannot be tapped.

    Args:
        network: the network; it is left as it is.
        image_shape: channels and size of a frame.
        count: number of layers.

    Returns:
        Module paths, from the finest resolution to the coarsest.

    Raises:
        ValueError: when it has fewer resolutions, as a transformer has: its layers are to be named.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
        >>> activation_layers(network, (1, 16, 16), count=2)
        ['1', '3']
    """
    probed = copy.deepcopy(network).train()
    sizes: dict[str, list[tuple[int, ...] | None]] = defaultdict(list)

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            size = None
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                activated = _LOWEST_ACTIVATION < output.amin() < output.amax()
                size = tuple(output.shape[2:]) if activated else None
            sizes[name].append(size)

        return hook

    for name, module in probed.named_modules():
        if name:
            module.register_forward_hook(note(name))
    noise = torch.randn(4, *image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        probed(noise.to(next(probed.parameters()).device))
    found: dict[tuple[int, ...], str] = {}
    for name, (size, *others) in sizes.items():  # in the order of the calls, a module after those in it
        if size is not None and not others and name.count(".") <= found.get(size, name).count("."):
            found[size] = name
    by_size = sorted(found.items(), key=lambda item: -item[0][0] * item[0][1])
    if len(by_size) < count:
        raise ValueError(
            f"Only {len(by_size)} resolutions with an activation were found, not {count}: name teacher_layers."
        )
    return [name for _, name in by_size[-count:]]
