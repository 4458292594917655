"""How the axes of a hidden layer's output are laid out: channels first, channels last, or as tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, get_args

from torch import Tensor

__all__ = ["Layout", "channels_first", "check_layout", "named_layers", "spatial_feature"]

Layout = Literal["channels_first", "channels_last", "tokens"] | Sequence[int]

_NAMES = get_args(get_args(Layout)[0])


def channels_first(feature: Tensor, layout: Layout | None = None) -> Tensor:
    """Bring a feature to ``[N, C, *positions]``.

    Args:
        feature: output of a hidden layer.
        layout: how its axes are laid out:

            - ``"channels_first"``: ``[N, C, *spatial]``, as convolutions give it;
            - ``"channels_last"``: ``[N, *spatial, C]``, as the blocks of a Swin transformer give it;
            - ``"tokens"``: ``[N, L, C]``, as the blocks of a vision transformer give it;
            - a list of numbers, the grid of tokens, such as ``[14, 14]``: the last 196 of the L tokens are its
              positions in row-major order, and those before them (class or register tokens) are left out;
            - None: ``"tokens"`` for three axes, ``"channels_first"`` for any other number.

    Returns:
        The feature with its channels as the second axis, as a view where that is possible.

    Raises:
        ValueError: when the feature does not have the axes of the layout, or there are fewer tokens than the grid has.

    Example:
        >>> import torch
        >>> channels_first(torch.zeros(2, 17, 32)).shape
        torch.Size([2, 32, 17])
        >>> channels_first(torch.zeros(2, 17, 32), [4, 4]).shape
        torch.Size([2, 32, 4, 4])
    """
    if layout is None:
        layout = "tokens" if feature.ndim == 3 else "channels_first"
    if layout == "channels_first":
        return feature
    if layout == "channels_last":
        return feature.movedim(-1, 1)
    if feature.ndim != 3:
        raise ValueError(f"tokens are laid out [N, L, C], got {tuple(feature.shape)}")
    if isinstance(layout, str):
        return feature.transpose(1, 2)
    grid, count = list(layout), math.prod(layout)
    if feature.shape[1] < count:
        raise ValueError(
            f"there are {feature.shape[1]} tokens in {tuple(feature.shape)}, fewer than the grid {grid} has"
        )
    return feature[:, feature.shape[1] - count :].transpose(1, 2).unflatten(2, grid)


def spatial_feature(name: str, feature: Tensor, layout: Layout | None, image_size: Sequence[int]) -> Tensor:
    """Bring a feature to ``[N, C, *spatial]``, with as many spatial axes as the image that the network was given.

    Without a ``layout``, what the shapes tell is taken, and what they leave open is refused. Tokens: their number is
    that of the patches of some size in the image, with or without one class token, which is left out. Channels last:
    all axes but the last are in proportion to the image.

    Args:
        name: name of the layer, for messages.
        feature: what it returned.
        layout: as for :func:`channels_first`; None to tell by the shapes.
        image_size: spatial size of the network's input.

    Returns:
        The feature, channels first; a pooled feature ``[N, C]`` as it is.

    Raises:
        ValueError: when the layout cannot be known from the shapes, or is not that of the feature.

    Example:
        >>> import torch
        >>> spatial_feature("blocks.3", torch.zeros(2, 197, 8), None, (224, 224)).shape
        torch.Size([2, 8, 14, 14])
    """
    size = tuple(image_size)
    if layout is None and feature.ndim == len(size) + 2:
        if _in_proportion(tuple(feature.shape[1:-1]), size) and not _in_proportion(tuple(feature.shape[2:]), size):
            raise ValueError(
                f"layer {name!r} gives {tuple(feature.shape)} for an image of {size}, which looks like channels last: "
                "say layout 'channels_last' or 'channels_first' for it"
            )
        return feature
    if feature.ndim == 3 and len(size) > 1 and layout in (None, "tokens"):
        grids = _token_grids(feature.shape[1], size)
        if len(grids) != 1:
            raise ValueError(
                f"layer {name!r} gives {tuple(feature.shape)} for an image of {size}: where its {feature.shape[1]} "
                f"tokens lie cannot be known. Give the grid of tokens as its layout, such as {[14] * len(size)}, or "
                "tap another layer"
            )
        layout = grids[0]
    return feature if feature.ndim == 2 else channels_first(feature, layout or "channels_first")


def check_layout(layout: Layout | Mapping[str, Layout] | None) -> None:
    """Raise ``ValueError`` for something that is no layout, also as that of one layer among several."""
    for value in layout.values() if isinstance(layout, Mapping) else [layout]:
        if value is None or value in _NAMES:
            continue
        if isinstance(value, str) or not value or any(not isinstance(size, int) or size < 1 for size in value):
            raise ValueError(f"layout must be one of {_NAMES} or the grid of tokens, such as [14, 14], got {value!r}")


def named_layers(layout: Layout | Mapping[str, Layout] | None) -> list[str]:
    """The layers that a layout by layer names."""
    return list(layout) if isinstance(layout, Mapping) else []


@lru_cache
def _in_proportion(size: tuple[int, ...], image_size: tuple[int, ...]) -> bool:
    return any(_patches(image_size, stride) == size for stride in range(1, max(image_size) + 1))


@lru_cache
def _token_grids(tokens: int, image_size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Grids of equal patches of the image whose number is that of the tokens, or one less beside a class token."""
    grids = {_patches(image_size, stride) for stride in range(1, max(image_size) + 1)}
    return [grid for grid in sorted(grids) if math.prod(grid) in (tokens, tokens - 1)]


def _patches(image_size: tuple[int, ...], stride: int) -> tuple[int, ...]:
    return tuple(math.ceil(size / stride) for size in image_size)
