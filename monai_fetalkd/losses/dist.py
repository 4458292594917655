"""Distillation of relations between and within classes (Huang et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_fetalkd.losses._logits import (
    check_logits,
    check_same_shape,
    check_temperature,
    check_weights,
    divisor,
    prediction_weights,
    weighted_mean,
)
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["DISTLoss"]

_EPSILON = 1e-8


class DISTLoss(_Loss):
    r"""One minus the Pearson correlation of the probabilities of student and teacher.

    With :math:`p = \mathrm{softmax}(z / T)` for each of the :math:`R` predictions, which are the images of a batch or
    all of their positions, and :math:`\rho(a, b) = a' \cdot b' / (\|a'\| \|b'\| + 10^{-8})` of the centred vectors:

    .. math::
        \mathcal{L} = T^2 \Big(
            w_\text{inter} \big(1 - \frac{1}{R} \sum_r \rho(p^S_{r \cdot}, p^T_{r \cdot})\big)
            + w_\text{intra} \big(1 - \frac{1}{C} \sum_c \rho(p^S_{\cdot c}, p^T_{\cdot c})\big) \Big)

    The first part compares the classes of each prediction, the second the predictions for each class. The student may
    be less sure than the teacher at no cost. With two classes the first part is 0 or 2 for each prediction and has next
    to no gradient; with one prediction the second is constant. A vector that does not vary counts 1; there the
    correlation has no derivative, and the gradient is large, so do not start from a head that is all zeros.

    Other code bases: the values are those of the article's code, whose version for segmentation has no temperature;
    torchdistill and MMRazor multiply by :math:`T^2` too. The article calls the weights beta and gamma.

    Args:
        inter_weight: weight of the part over the classes, beta.
        intra_weight: weight of the part over the predictions, gamma.
        temperature: how much both predictions are softened, above 0.

    Raises:
        ValueError: when ``temperature`` is not positive and finite, or a weight is negative or not finite.

    Example:
        >>> student = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        >>> teacher = torch.tensor([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
        >>> DISTLoss()(student, teacher)
        tensor(0.0344)

    References:
        Huang T. et al. Knowledge Distillation from A Stronger Teacher. NeurIPS 2022, arXiv:2205.10536; code:
        github.com/hunto/DIST_KD.
    """

    def __init__(self, inter_weight: float = 1.0, intra_weight: float = 1.0, temperature: float = 1.0) -> None:
        check_temperature(temperature)
        check_weights(inter_weight, intra_weight)
        super().__init__()
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compare the logits of student and teacher.

        Args:
            input: logits of the student, ``[N, C, *spatial]``.
            target: the teacher's, of the same shape. They never receive a gradient.
            mask: which predictions count, or how much: ``[N, *spatial]`` or ``[N, 1, *spatial]``. Where none does, the
                loss is zero.

        Returns:
            A scalar.

        Raises:
            ValueError: when shapes differ or are not those of logits of two or more classes, or of the mask.
        """
        check_same_shape(input, target)
        check_logits(input)
        with torch.autocast(input.device.type, enabled=False):
            student, teacher = (self._rows(full_precision(logits)) for logits in (input, target.detach()))
            weights = torch.ones_like(student[:, 0])
            if mask is not None:
                weights = prediction_weights(mask, input).to(student).flatten()
            inter = 1 - _correlation(student, teacher, torch.ones_like(student[0]))
            intra = 1 - _correlation(student.T, teacher.T, weights)
            loss = self.inter_weight * weighted_mean(inter, weights) + self.intra_weight * intra.mean()
            return self.temperature**2 * loss * (weights.amax() > 0)

    def _rows(self, logits: Tensor) -> Tensor:
        """The probabilities of each prediction, ``[R, C]``."""
        return (logits / self.temperature).softmax(dim=1).movedim(1, -1).flatten(0, -2)


def _correlation(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """Pearson correlation over the last axis, whose entries are weighted."""
    student, teacher = (_centred(values, weights) for values in (student, teacher))
    norms = torch.linalg.vector_norm(student, dim=-1) * torch.linalg.vector_norm(teacher, dim=-1)
    return (student * teacher).sum(dim=-1) / (norms + _EPSILON)


def _centred(values: Tensor, weights: Tensor) -> Tensor:
    mean = (values * weights).sum(dim=-1, keepdim=True) / divisor(weights.sum())
    return (values - mean) * weights.sqrt()  # the other factor of a product brings the other root
