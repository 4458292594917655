"""What width means for each network, and the definition of a narrower one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["UnknownWidthError", "reduced_arguments"]

# arguments that say how wide a network is, under the names that MONAI's networks give them
_WIDTHS = frozenset(
    {
        "block_inplanes",
        "channels",
        "decoder_channels",
        "embed_dim",
        "feature_size",
        "features",
        "filters",
        "growth_rate",
        "hidden_size",
        "init_features",
        "init_filters",
        "mlp_dim",
        "num_channel_initial",
        "num_channels_initial",
        "num_filters",
        "width",
    }
)

# arguments by which all widths of a network are multiplied, whether they are written as 1 or as 1.0
_FACTORS = frozenset({"channel_mul", "widen_factor", "width_coefficient"})

# Networks of one width have a number of blocks in each stage instead.
_DEPTHS = frozenset(
    {"AHNet", "SENet", "SENet154", "SEResNet50", "SEResNet101", "SEResNet152"} | {"SEResNext50", "SEResNext101"}
)

# What a width must be a multiple of: a number, or the argument that says it. Groups of a normalisation, heads of an
# attention, the patches of a Swin transformer.
_MULTIPLES: Mapping[str, Mapping[str, int | str]] = {
    "MedNeXt": {"init_filters": 1},
    "SegResNet": {"init_filters": "groups"},
    "SegResNetVAE": {"init_filters": "groups"},
    "SwinUNETR": {"feature_size": 12},
    "UNETR": {"hidden_size": "num_heads"},
    "UNesT": {"embed_dim": "num_heads"},
    "ViT": {"hidden_size": "num_heads"},
    "ViTAutoEnc": {"hidden_size": "num_heads"},
}

# backbones by name, from the widest to the narrowest, with their parameters in millions (2-D, without a head)
_BACKBONES: tuple[Mapping[str, float], ...] = (
    {
        "efficientnet-b7": 63.8,
        "efficientnet-b6": 40.7,
        "efficientnet-b5": 28.3,
        "efficientnet-b4": 17.5,
        "efficientnet-b3": 10.7,
        "efficientnet-b2": 7.7,
        "efficientnet-b1": 6.5,
        "efficientnet-b0": 4.0,
    },
    {
        "resnet200": 62.6,
        "resnet152": 58.1,
        "resnet101": 42.5,
        "resnet50": 23.5,
        "resnet34": 21.3,
        "resnet18": 11.2,
        "resnet10": 4.9,
    },
)
_BACKBONE_ARGUMENTS = ("backbone", "model_name")

# functions that make a ResNet take its width among further arguments
_RESNETS = frozenset({"resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"})


class UnknownWidthError(ValueError):
    """Nothing says what width means for a network."""


def reduced_arguments(network: Callable[..., Any], arguments: Mapping[str, Any], reduce: float) -> dict[str, Any]:
    """The arguments of a network that make it narrower.

    Args:
        network: class of the network, or the function that makes it.
        arguments: what it is called with now, evaluated.
        reduce: what widths are divided by. A result is rounded to the nearest multiple of what it must be divisible by.
            A backbone that is given by name is replaced by the widest of its family with that share of the
            parameters or less; a network of one width gets fewer blocks in each stage.

    Returns:
        The arguments that change, with their new values.

    Raises:
        ValueError: when nothing says what width means for this network, no channel would be left, or all as it is.

    Example:
        >>> from monai.networks.nets import SegResNet, UNet
        >>> reduced_arguments(UNet, {"channels": [16, 32, 64]}, 2)
        {'channels': [8, 16, 32]}
        >>> reduced_arguments(SegResNet, {"init_filters": 24}, 2)  # groups of eight
        {'init_filters': 16}
    """
    if not reduce > 1:
        raise ValueError(f"A student is smaller than its teacher: --reduce must be above 1, not {reduce:g}.")
    name = getattr(network, "__name__", str(network))
    signature = inspect.signature(network).parameters
    defaults = {key: value.default for key, value in signature.items() if value.default is not inspect.Parameter.empty}
    if name in _RESNETS:
        defaults = {"widen_factor": 1.0, **defaults}
    values = {**defaults, **arguments}
    changed: dict[str, Any] = {}
    if name == "DynUNet" and values["filters"] is None:
        values["filters"] = _dynunet_filters(values)
    if "block_inplanes" in values:  # a ResNet has two ways to say it
        values.pop("widen_factor", None)
    for key, value in values.items():
        if key in _WIDTHS and value is not None:
            multiple = _MULTIPLES.get(name, {}).get(key, 1)
            changed[key] = _divided(name, key, value, reduce, _multiple(multiple, values))
        elif key in _FACTORS:
            changed[key] = value / reduce
        elif key == "layers" and name in _DEPTHS:
            changed[key] = [max(1, round(count / reduce)) for count in value]
        elif key in _BACKBONE_ARGUMENTS and isinstance(value, str):
            changed |= _smaller_backbone(key, value, reduce)
    if not changed:
        raise UnknownWidthError(
            f"Nothing is known about what width means for a {name}, of which --reduce {reduce:g} was asked: give the "
            "student's definition as --student FILE."
        )
    if all(_listed(values[key]) == _listed(value) for key, value in changed.items()):
        raise ValueError(
            f"--reduce {reduce:g} leaves the {name} as it is ({', '.join(changed)}): give a larger number, or the "
            "student's definition as --student FILE."
        )
    if values.get("pretrained") is True:
        changed["pretrained"] = False  # weights of the wider one
    return changed


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _divided(name: str, key: str, value: Any, reduce: float, multiple: Any) -> Any:
    if isinstance(value, Sequence):
        each = multiple if isinstance(multiple, Sequence) else [multiple] * len(value)
        return [_divided(name, key, one, reduce, of) for one, of in zip(value, each, strict=True)]
    if value < reduce:
        raise ValueError(
            f"--reduce {reduce:g} leaves no channel: '{key}' of the {name} is {value}. Give a smaller number."
        )
    return max(multiple, round(value / reduce / multiple) * multiple)


def _multiple(rule: int | str, values: Mapping[str, Any]) -> Any:
    if rule == "groups":
        norm = values.get("norm")
        if isinstance(norm, Sequence) and not isinstance(norm, str) and len(norm) > 1:
            return norm[1].get("num_groups", 1)
        return values.get("num_groups", 1)
    return values[rule] if isinstance(rule, str) else rule


def _dynunet_filters(values: Mapping[str, Any]) -> list[int]:
    """What MONAI's DynUNet takes where it is told nothing (its ``filters`` attribute)."""
    most = 320 if values["spatial_dims"] == 3 else 512
    return [min(2 ** (5 + level), most) for level in range(len(values["strides"]))]


def _smaller_backbone(key: str, name: str, reduce: float) -> dict[str, str]:
    for family in _BACKBONES:
        if name in family:
            fitting = [other for other, size in family.items() if size <= family[name] / reduce]
            return {key: (fitting or list(family)[-1:])[0]}
    return {}
