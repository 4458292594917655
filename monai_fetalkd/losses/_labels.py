"""What the losses that see the label share: class indices as MONAI's loaders give them, at the size of a feature."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from monai_fetalkd.utils.tensor import full_precision, plain

__all__ = [
    "NO_LABEL",
    "class_indices",
    "class_masks",
    "has_fraction",
    "labelled_items",
    "loss_on_labels",
    "resize_nearest",
]

# torch's own default for an index to ignore, so that its cross entropy skips such labels too
NO_LABEL = -100


def labelled_items(label: Tensor) -> Tensor:
    """Which items of a batch have a label, bool ``[N]``: those whose label is not all :data:`NO_LABEL`."""
    return (label.reshape(len(label), -1) != NO_LABEL).any(1)


def loss_on_labels(loss: Callable[..., Tensor], logits: Tensor | Sequence[Tensor], label: Tensor) -> Tensor:
    """What a loss on labels gives for the items that have a label; zero, on the graph of the logits, without any.

    Logits are given to it in at least float32. A label of their shape is given in their type: transforms such as
    MONAI's ``ConvertToMultiChannelBasedOnBratsClassesd`` give boolean maps and readers give bytes, but a loss that
    subtracts label and prediction (BCE, L1, ``DiceLoss(squared_pred=True)``) needs numbers.

    Args:
        loss: called with logits and label.
        logits: ``[N, C, *spatial]``, or those of each head under deep supervision, for which the label is a number with
            a fraction: integers cannot be interpolated to the size of a head.
        label: as the loss takes it.
    """
    label = plain(label)
    heads = [logits] if isinstance(logits, Tensor) else list(logits)
    present = labelled_items(label)
    if not present.all():
        heads, label = [head[present] for head in heads], label[present]
    with torch.autocast(label.device.type, enabled=False):
        heads = [full_precision(head) for head in heads]
        if not len(label):
            return torch.stack([head.sum() for head in heads]).sum()
        if not isinstance(logits, Tensor):
            return loss(heads, full_precision(label))
        return loss(heads[0], label.to(heads[0].dtype) if label.shape == heads[0].shape else label)


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
