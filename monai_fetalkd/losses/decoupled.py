"""Decoupled knowledge distillation (Zhao et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_fetalkd.losses._labels import class_masks
from monai_fetalkd.losses._logits import (
    check_logits,
    check_same_shape,
    check_temperature,
    check_weights,
    expected,
    prediction_weights,
    weighted_mean,
)
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["DecoupledLoss"]


class DecoupledLoss(_Loss):
    r"""Soft targets in two parts of weights of their own: how sure of the labelled class, and which of the others.

    With :math:`b = (p_y, 1 - p_y)` for the probability :math:`p_y` of the labelled class under
    :math:`\mathrm{softmax}(z / T)`, and :math:`q` the softmax over all other classes, the loss is the mean over all
    predictions of

    .. math::
        T^2 \big( w_\text{target} \, \mathrm{KL}(b^T \| b^S) + w_\text{other} \, \mathrm{KL}(q^T \| q^S) \big)

    With weights 1 and :math:`1 - p^T_y` this would be :class:`~monai_fetalkd.losses.SoftTargetLoss`: the second part is
    there suppressed where the teacher is sure. Of two classes there is one other, so the second part is zero. A
    prediction whose label is none of the classes, such as 255 for "ignore", does not count.

    Other code bases: mdistiller and MMRazor divide by the number of images, as here; for dense predictions that number
    is that of the positions. Their warm-up of the weight is a schedule here
    (:class:`monai_fetalkd.handlers.LossWeightSchedule`). The article calls the weights alpha and beta.

    Args:
        target_weight: weight of the part on the labelled class, alpha.
        other_weight: weight of the part on the other classes, beta.
        temperature: how much both predictions are softened, above 0.

    Raises:
        ValueError: when ``temperature`` is not positive and finite, or a weight is negative or not finite.

    Example:
        >>> student, teacher = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[8.0, 0.0, 4.0]])
        >>> DecoupledLoss(target_weight=1.0, other_weight=8.0)(student, teacher, torch.tensor([0]))
        tensor(15.6764)

    References:
        Zhao B. et al. Decoupled Knowledge Distillation. CVPR 2022, arXiv:2203.08679; code:
        github.com/megvii-research/mdistiller.
    """

    uses_label = True

    def __init__(self, target_weight: float = 1.0, other_weight: float = 8.0, temperature: float = 4.0) -> None:
        check_temperature(temperature)
        check_weights(target_weight, other_weight)
        super().__init__()
        self.target_weight = target_weight
        self.other_weight = other_weight
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compare the logits of student and teacher.

        Args:
            input: logits of the student, ``[N, C, *spatial]``.
            target: the teacher's, of the same shape. They never receive a gradient.
            label: class indices, ``[N, *spatial]`` or ``[N, 1, *spatial]``.
            mask: which predictions count, or how much, of the shape of the label. A mean over no prediction is zero.

        Returns:
            A scalar.

        Raises:
            ValueError: when shapes differ, or are not those of logits of two or more classes and of their label.
        """
        check_same_shape(input, target)
        check_logits(input)
        labelled = class_masks(label, input, input.shape[1])
        counted = labelled.any(dim=1)
        labelled[:, 0] |= ~counted  # any class: the divergence is finite then, and its weight is zero
        with torch.autocast(input.device.type, enabled=False):
            student, teacher = (
                full_precision(input) / self.temperature,
                full_precision(target.detach()) / self.temperature,
            )
            weights = counted.to(student.dtype)
            if mask is not None:
                weights = weights * prediction_weights(mask, student)
            binary = _divergence(_binary(teacher, labelled), _binary(student, labelled))
            others = _divergence(_others(teacher, labelled), _others(student, labelled))
            divergence = self.target_weight * binary + self.other_weight * others
            return self.temperature**2 * weighted_mean(divergence, weights)


def _divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    return expected(log_q.exp(), log_q - log_p).sum(dim=1)


def _binary(logits: Tensor, labelled: Tensor) -> Tensor:
    """Logarithm of the probabilities of the labelled class and of all others together."""
    log_p = logits.log_softmax(dim=1)
    parts = [log_p.masked_fill(~inside, -math.inf).logsumexp(dim=1) for inside in (labelled, ~labelled)]
    return torch.stack(parts, dim=1)


def _others(logits: Tensor, labelled: Tensor) -> Tensor:
    """Logarithm of the probabilities among the other classes; minus infinity for the labelled one."""
    others = logits.masked_fill(labelled, -math.inf)
    nothing_left = (others == -math.inf).all(dim=1, keepdim=True)  # a teacher may rule out all of them
    return others.masked_fill(nothing_left, 0).log_softmax(dim=1).masked_fill(nothing_left | labelled, -math.inf)
