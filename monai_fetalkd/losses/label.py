"""The loss on labels: cross entropy that takes labels as MONAI's loaders give them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_fetalkd.losses._labels import class_indices, has_fraction
from monai_fetalkd.losses._logits import check_logits, divisor
from monai_fetalkd.utils.tensor import full_precision, plain

__all__ = ["LabelLoss", "is_sigmoid_head"]


class LabelLoss(nn.CrossEntropyLoss):
    r"""Cross entropy of class indices or soft labels, with or without a channel axis.

    As :class:`torch.nn.CrossEntropyLoss` with ``reduction="mean"``, except that

    - class indices may have a channel axis, as MONAI's segmentation labels have, and may be floating-point numbers, as
      MONAI's readers give them; a number with a fraction is refused rather than cut;
    - a batch in which every label is ignored costs zero, not NaN.

    On a GPU a fractional label makes the loss NaN, as a check would have to wait for the device.

    Args:
        class_weights: one weight for each class; None weighs each by 1.
        ignore_index: class index that does not count.
        label_smoothing: share of the label that is spread over all classes.

    Raises:
        ValueError: when a weight is negative, or by the call, when labels and logits do not match or a label is no
            class index.

    Example:
        >>> loss = LabelLoss(label_smoothing=0.1)
        >>> loss(torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 8, 8))  # ln 4
        tensor(1.3863)
        >>> LabelLoss()(torch.zeros(1, 2), torch.tensor([[0.25, 0.75]]))  # a soft label, ln 2
        tensor(0.6931)
    """

    def __init__(
        self, class_weights: Sequence[float] | None = None, ignore_index: int = -100, label_smoothing: float = 0.0
    ) -> None:
        if class_weights is not None and not all(weight >= 0 for weight in class_weights):
            raise ValueError(f"class_weights must not be negative, got {list(class_weights)}")
        weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        super().__init__(weight, ignore_index=ignore_index, label_smoothing=label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the mean over all labels that count.

        Args:
            input: logits, ``[N, C, *spatial]``.
            target: class indices, ``[N, *spatial]`` or ``[N, 1, *spatial]``, or probabilities of the classes,
                ``[N, C, *spatial]`` in a floating-point type.

        Returns:
            A scalar.

        Raises:
            ValueError: see the class.
        """
        logits, label = full_precision(input), plain(target)
        check_logits(logits)
        weight = None if self.weight is None else self.weight.to(logits)
        smoothing = self.label_smoothing
        if label.shape == logits.shape and label.is_floating_point():
            return functional.cross_entropy(logits, label.to(logits), weight, label_smoothing=smoothing)
        indices = class_indices(label, logits)
        fraction = has_fraction(indices)
        indices = indices.long()
        values = functional.cross_entropy(
            logits, indices, weight, ignore_index=self.ignore_index, reduction="none", label_smoothing=smoothing
        )
        counts = (indices != self.ignore_index).to(values)
        if weight is not None:
            counts = counts * weight[indices.clamp(0, logits.shape[1] - 1)]
        loss = values.sum() / divisor(counts.sum())
        return loss if fraction is None else loss.masked_fill(fraction, torch.nan)


def is_sigmoid_head(label_loss: object) -> bool:
    """Whether a loss on labels treats the classes as independent (sigmoid) rather than as exclusive (softmax).

    It is read from the settings by which MONAI's and torch's losses say so: ``sigmoid``, ``softmax`` and
    ``use_softmax`` of the loss or of a loss inside it. A loss that says nothing is taken for one of exclusive classes.

    Args:
        label_loss: the loss, also inside wrappers such as MONAI's ``DeepSupervisionLoss``.

    Example:
        >>> from monai.losses import DeepSupervisionLoss, DiceCELoss
        >>> is_sigmoid_head(DeepSupervisionLoss(DiceCELoss(sigmoid=True))), is_sigmoid_head(DiceCELoss(softmax=True))
        (True, False)
    """
    inner = label_loss
    while isinstance(getattr(inner, "loss", None), nn.Module):  # a wrapper, as for deep supervision
        inner = inner.loss  # type: ignore[attr-defined]
    parts = list(inner.modules()) if isinstance(inner, nn.Module) else [inner]
    if any(getattr(part, name, None) is True for part in parts for name in ("softmax", "use_softmax")):
        return False
    if any(getattr(part, "sigmoid", None) is True or getattr(part, "use_softmax", None) is False for part in parts):
        return True
    return isinstance(inner, (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss))
