"""What the losses that see the label share: class indices as MONAI's loaders give them, at the size of a feature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_fetalkd.utils.tensor import plain

__all__ = ["NO_LABEL", "class_indices", "class_masks", "has_fraction", "labelled_items", "resize_nearest"]

# torch's own default for an index to ignore, so that its cross entropy skips such labels too
NO_LABEL = -100


def labelled_items(label: Tensor) -> Tensor:
    """Which items of a batch have a label, bool ``[N]``: those whose label is not all :data:`NO_LABEL`."""
    return (label.reshape(len(label), -1) != NO_LABEL).any(1)


def class_masks(label: Tensor, values: Tensor, num_classes: int) -> Tensor:
    """Where each class lies: boolean ``[N, K, *spatial]`` for logits or a feature ``[N, C, *spatial]``.

    A label outside of ``0 ... K - 1``, such as 255 for "ignore", belongs to no class.
    """
    indices = class_indices(label, values)
    has_fraction(indices)
    classes = torch.arange(num_classes, device=indices.device)
    return indices.unsqueeze(1) == classes.view(1, -1, *(1,) * (indices.ndim - 1))


def class_indices(label: Tensor, values: Tensor) -> Tensor:
    """The label as ``[N, *spatial]``, whether or not it has a channel axis.

    Raises:
        ValueError: when its shape is not that of class indices for logits or a feature ``[N, C, *spatial]``.
    """
    label = plain(label)
    indices = label.squeeze(1) if label.ndim == values.ndim and label.shape[1] == 1 else label
    if indices.shape != values.shape[:1] + values.shape[2:]:
        raise ValueError(
            "labels must be class indices of shape [N, *spatial] or [N, 1, *spatial] (for one-hot labels say "
            f"label.argmax(1); LabelLoss also takes probabilities), got {tuple(label.shape)} and {tuple(values.shape)}"
        )
    return indices


def has_fraction(indices: Tensor) -> Tensor | None:
    """Whether some index is no whole number, for labels of a floating-point type on a device that computes ahead.

    Raises:
        ValueError: on the CPU, when there is one.
    """
    if not indices.is_floating_point():
        return None
    found = (indices != indices.round()).any()
    if found.device.type != "cpu":
        return found
    if found:
        example = indices[indices != indices.round()][0].item()
        raise ValueError(
            f"labels must be class indices, but one is {example:g}: interpolate labels with mode 'nearest', or give "
            "probabilities of the shape of the logits"
        )
    return None


def resize_nearest(values: Tensor, size: Sequence[int], centred: bool = False) -> Tensor:
    """Resize the last axes by nearest neighbour, in any number of dimensions and any type.

    Args:
        values: label or mask, ``[N, *spatial]`` or ``[N, C, *spatial]``; one without these axes is returned as it is.
        size: the new spatial size.
        centred: take the input at the centre of each output, as torch's ``"nearest-exact"`` and MONAI's
            ``DeepSupervisionLoss`` do; else at its first corner, as torch's ``"nearest"`` and the published losses do.
    """
    values = plain(values)
    first = values.ndim - len(size)
    if first not in (1, 2):
        return values
    for axis, new in enumerate(size, first):
        old = values.shape[axis]
        if old != new:
            index = torch.arange(new, device=values.device)
            index = (2 * index + 1) * old // (2 * new) if centred else index * old // new
            values = values.index_select(axis, index)
    return values
