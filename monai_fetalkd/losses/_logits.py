"""What the losses on logits share: checks, the predictions that count, and sums that stay finite."""

from __future__ import annotations

import math

from torch import Tensor

from monai_fetalkd.utils.tensor import plain

__all__ = [
    "check_logits",
    "check_same_shape",
    "check_temperature",
    "check_weights",
    "divisor",
    "expected",
    "prediction_weights",
    "weighted_mean",
]


def check_temperature(temperature: float) -> None:
    """Raise ``ValueError`` unless the temperature is positive and finite."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")


def check_weights(*weights: float) -> None:
    """Raise ``ValueError`` unless all weights are finite and not negative."""
    if not all(0 <= weight < math.inf for weight in weights):
        raise ValueError(f"weights must be finite and not negative, got {' and '.join(map(str, weights))}")


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Raise ``ValueError`` unless both have the same shape: broadcasting would hide a mistake."""
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher logits must have the same shape, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )


def check_logits(logits: Tensor) -> None:
    """Raise ``ValueError`` unless the logits are ``[N, C, *spatial]`` with ``C >= 2``."""
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise ValueError(
            "logits must have shape [N, C, *spatial] with two or more classes (the softmax of a single logit is "
            f"constant: for sigmoid heads use SigmoidSoftTargetLoss and a label loss of that kind), "
            f"got {tuple(logits.shape)}"
        )


def prediction_weights(mask: Tensor, logits: Tensor) -> Tensor:
    """The mask as one weight for each prediction, ``[N, *spatial]``, in the type of the logits."""
    places = logits.shape[:1] + logits.shape[2:]
    mask = plain(mask)
    if mask.shape == (*places[:1], 1, *places[1:]):
        mask = mask.squeeze(1)
    if mask.shape != places:
        raise ValueError(
            f"the mask must have shape {tuple(places)}, one value for each prediction of logits of shape "
            f"{tuple(logits.shape)}, got {tuple(mask.shape)}"
        )
    return mask.to(logits.dtype)


def expected(probability: Tensor, log_ratio: Tensor) -> Tensor:
    """The product, where 0 log 0 = 0: the logarithm of a probability of zero is infinite, perhaps on both sides."""
    return (probability * log_ratio).masked_fill(probability == 0, 0.0)


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of the values, weighted; zero where all weights are zero."""
    if weights is None:
        return values.mean()
    return (values * weights).sum() / divisor(weights.expand_as(values).sum())


def divisor(total: Tensor) -> Tensor:
    """The total, or one in place of zero: a tiny number would do for the value, but overflow in the gradient."""
    return total.masked_fill(total == 0, 1)
