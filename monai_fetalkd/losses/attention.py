"""Attention maps: where, or in which channels, a hidden layer is active."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from monai_fetalkd.layouts import Layout, channels_first
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["AttentionKind", "attention_map"]

AttentionKind = Literal["spatial", "channel"]


def attention_map(
    feature: Tensor, kind: AttentionKind = "spatial", power: float = 2.0, layout: Layout | None = None
) -> Tensor:
    r"""Reduce the feature map of a hidden layer to its activation-based attention map.

    With a feature :math:`x` of :math:`C` channels and :math:`S` positions, the two kinds are

    .. math::
        A_\text{spatial}(s) = \frac{1}{C} \sum_{c} |x_{c,s}|^p \qquad
        A_\text{channel}(c) = \frac{1}{S} \sum_{s} |x_{c,s}|^p

    The map is not normalised: a loss that compares two maps brings them to one scale itself. Zagoruyko & Komodakis
    write a sum over channels and their code takes the mean; once a map is normalised the two are the same. Their code
    also leaves out the absolute value, which tells only for odd powers of features that can be negative.

    Args:
        feature: output of a hidden layer, ``[N, C, *spatial]`` with any number of spatial dimensions, or as ``layout``
            says. Half precision is raised to float32 first; float64 stays float64.
        kind: ``"spatial"`` pools over channels and tells where the layer looks; ``"channel"`` pools over space and
            tells which of its channels answer.
        power: the exponent ``p``, at least 1. The larger it is, the more the strongest activations dominate.
        layout: see :func:`monai_fetalkd.layouts.channels_first`. By default three axes are tokens
            ``[N, L, C]``: features of a network in one dimension, ``[N, C, length]``, need ``"channels_first"``.

    Returns:
        Non-negative map, ``[N, *spatial]`` for ``"spatial"`` and ``[N, C]`` for ``"channel"``; the L tokens are one
        spatial axis.

    Raises:
        ValueError: when the feature has no spatial dimension, ``kind`` is unknown or ``power`` is below 1.

    Example:
        >>> import torch
        >>> feature = torch.tensor([[[[1.0, 0.0]], [[3.0, 2.0]]]])  # one frame, two channels, one row of two positions
        >>> attention_map(feature)
        tensor([[[5., 2.]]])
        >>> attention_map(feature, kind="channel")
        tensor([[0.5000, 6.5000]])

    References:
        Zagoruyko S., Komodakis N. Paying More Attention to Attention: Improving the Performance of Convolutional Neural
        Networks via Attention Transfer. ICLR 2017, arXiv:1612.03928.
    """
    check_attention_arguments(kind, power)
    if feature.ndim < 3:
        raise ValueError(
            "an attention map needs a feature of shape [N, C, *spatial] with at least one spatial dimension, "
            f"got {tuple(feature.shape)}: tap a layer before the global pooling"
        )
    feature = channels_first(full_precision(feature), layout)
    energy = feature.square() if power == 2 else feature.abs().pow(power)
    if kind == "channel":
        return energy.flatten(start_dim=2).mean(dim=2)
    # the gradient of mean() is laid out channels first, which is slow beside activations that have them last
    return energy.sum(dim=1) / energy.shape[1]


def check_attention_arguments(kind: str, power: float) -> None:
    """Raise ``ValueError`` for an unknown kind of map or a power whose gradient is infinite at zero."""
    if kind not in get_args(AttentionKind):
        raise ValueError(f"kind of attention map must be one of {get_args(AttentionKind)}, got {kind!r}")
    if not power >= 1:
        raise ValueError(f"power must be at least 1 (below, the gradient at zero is infinite), got {power}")
