"""Distillation through softened outputs (Hinton et al. 2015), for softmax and for sigmoid heads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from monai_fetalkd.losses._logits import (
    check_logits,
    check_same_shape,
    check_temperature,
    expected,
    prediction_weights,
    weighted_mean,
)
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["SigmoidSoftTargetLoss", "SoftTargetLoss"]

_REDUCTIONS = ("none", "mean", "sum")


class _SoftTargets(_Loss, ABC):
    """What both heads share: temperature, the weight of each prediction, and the reduction."""

    def __init__(
        self, temperature: float = 4.0, reduction: str = "mean", class_weights: Sequence[float] | None = None
    ) -> None:
        check_temperature(temperature)
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction must be one of {_REDUCTIONS}, got {reduction!r}")
        if class_weights is not None and not all(0 <= weight < math.inf for weight in class_weights):
            raise ValueError(f"class_weights must be finite and not negative, got {list(class_weights)}")
        super().__init__(reduction=reduction)
        self.temperature = temperature
        self.class_weights = None if class_weights is None else tuple(class_weights)

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compare the logits of student and teacher.

        Args:
            input: logits of the student, ``[N, C, *spatial]``; half precision is computed in float32.
            target: logits of the teacher, of the same shape, minus infinity for a class that it rules out. They never
                receive a gradient.
            mask: which predictions count, or how much: ``[N, *spatial]`` or ``[N, 1, *spatial]``, boolean or numbers
                that are not negative. A mean over no prediction is zero.

        Returns:
            A scalar; with ``reduction="none"`` the divergence of each prediction.

        Raises:
            ValueError: when shapes differ or are not those of logits, of the mask, or of the class weights.
        """
        check_same_shape(input, target)
        self._check(input)
        # autocast would lower some of what follows again
        with torch.autocast(input.device.type, enabled=False):
            student, teacher = full_precision(input), full_precision(target.detach())
            divergence, weights = self._divergence(self._softened(student), self._softened(teacher))
            divergence = self.temperature**2 * divergence
            if mask is not None:
                present = prediction_weights(mask, student)
                present = present if divergence.ndim == present.ndim else present.unsqueeze(1)
                weights = present if weights is None else weights * present
            return self._reduce(divergence, weights)

    def _reduce(self, divergence: Tensor, weights: Tensor | None) -> Tensor:
        if self.reduction == "mean":
            return weighted_mean(divergence, weights)
        divergence = divergence if weights is None else divergence * weights
        return divergence if self.reduction == "none" else divergence.sum()

    def _weights(self, logits: Tensor) -> Tensor | None:
        """The class weights as ``[1, C, 1, ...]``."""
        if self.class_weights is None:
            return None
        if len(self.class_weights) != logits.shape[1]:
            raise ValueError(
                f"class_weights must name one weight for each class, got {len(self.class_weights)} for logits of shape "
                f"{tuple(logits.shape)}"
            )
        return logits.new_tensor(self.class_weights).view(1, -1, *(1,) * (logits.ndim - 2))

    def _softened(self, logits: Tensor) -> Tensor:
        return logits / self.temperature

    @abstractmethod
    def _check(self, logits: Tensor) -> None:
        """Raise ``ValueError`` for logits of another head."""

    @abstractmethod
    def _divergence(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor | None]:
        """Divergence of every prediction, and its weight where there are class weights."""


class SoftTargetLoss(_SoftTargets):
    r"""Kullback-Leibler divergence of the student's softened predictions from the teacher's, for exclusive classes.

    For one prediction with student logits :math:`s`, teacher logits :math:`t` and temperature :math:`T`:

    .. math::
        \ell = T^2 \, \mathrm{KL}\big(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T)\big)

    The factor :math:`T^2` keeps the size of the gradient when the temperature changes. A frame with logits ``[N, C]``
    holds one prediction; with per-voxel logits ``[N, C, *spatial]`` each voxel is one, and ``"mean"`` averages over all
    of them, as :class:`torch.nn.CrossEntropyLoss` does, so that both losses keep their balance at any image size.

    With class weights :math:`w`, a prediction counts :math:`\sum_c w_c \, \mathrm{softmax}(t / T)_c` times, and the
    mean divides by the sum of these counts. A class that the teacher rules out (a logit of minus infinity) adds
    nothing: :math:`0 \log 0 = 0`.

    With ``standardise``, the logits :math:`z` of both networks are first replaced by their z-scores
    :math:`(z - \bar z) / (10^{-7} + \sigma(z))` over the classes, with :math:`\sigma` over :math:`C - 1`. The student
    then need not reach the teacher's range of logits, but only its order and proportions. Classes that are ruled out
    are left out of mean and deviation. The z-scores of two classes are :math:`\pm 0.707` whatever the logits, so two
    classes are refused.

    Other code bases: ``reduction="batchmean"`` divides by ``N`` only, which is the same for ``[N, C]`` and larger by
    the number of voxels otherwise; the default reduction of :class:`torch.nn.KLDivLoss` divides by ``N * C`` as well,
    which is smaller by the number of classes. The code of logit standardisation multiplies the loss by 9 on CIFAR-100.

    Args:
        temperature: how much both predictions are softened, above 0; 1 leaves them as they are.
        reduction: ``"mean"`` over all predictions, their ``"sum"``, or ``"none"``.
        class_weights: one weight for each class; None weighs all predictions by 1.
        standardise: compare z-scores of the logits in place of the logits.

    Raises:
        ValueError: when ``temperature`` is not positive and finite, ``reduction`` is unknown, or a weight is negative.

    Example:
        >>> student, teacher = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[8.0, 0.0, 4.0]])
        >>> SoftTargetLoss(temperature=4.0)(student, teacher)
        tensor(2.0698)

    References:
        Hinton G., Vinyals O., Dean J. Distilling the Knowledge in a Neural Network. 2015, arXiv:1503.02531.

        Sun S. et al. Logit Standardization in Knowledge Distillation. CVPR 2024, arXiv:2403.01427; code:
        github.com/sunshangquan/logit-standardization-KD.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        reduction: str = "mean",
        class_weights: Sequence[float] | None = None,
        standardise: bool = False,
    ) -> None:
        super().__init__(temperature, reduction, class_weights)
        self.standardise = standardise

    def _softened(self, logits: Tensor) -> Tensor:
        return super()._softened(_standardised(logits) if self.standardise else logits)

    def _check(self, logits: Tensor) -> None:
        check_logits(logits)
        if self.standardise and logits.shape[1] == 2:
            raise ValueError(
                f"standardised logits of two classes are the same whatever the logits, got {tuple(logits.shape)}: set "
                "standardise to False"
            )

    def _divergence(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor | None]:
        log_q, log_p = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
        q = log_q.exp()
        divergence = expected(q, log_q - log_p).sum(dim=1)
        weights = self._weights(student)
        return divergence, None if weights is None else (weights * q).sum(dim=1)


class SigmoidSoftTargetLoss(_SoftTargets):
    r"""Kullback-Leibler divergence of Bernoulli distributions, for classes that may overlap and for a single logit.

    With :math:`q = \sigma(t / T)` and :math:`p = \sigma(s / T)` for each class of each prediction:

    .. math::
        \ell = T^2 \Big( q \log \frac{q}{p} + (1 - q) \log \frac{1 - q}{1 - p} \Big)

    ``"mean"`` averages over all classes and predictions, as :class:`torch.nn.BCEWithLogitsLoss` does. Class weights
    multiply the classes, and the mean divides by the sum of the weights.

    Args:
        temperature: how much both predictions are softened, above 0.
        reduction: ``"mean"`` over all elements, their ``"sum"``, or ``"none"``.
        class_weights: one weight for each class; None weighs each by 1.

    Raises:
        ValueError: when ``temperature`` is not positive and finite, ``reduction`` is unknown, or a weight is negative.

    Example:
        >>> SigmoidSoftTargetLoss(temperature=1.0)(torch.tensor([[0.0]]), torch.tensor([[2.0]]))
        tensor(0.3278)

    References:
        Hinton et al. 2015 (see :class:`SoftTargetLoss`) for each class as a distribution of its own.
    """

    def _check(self, logits: Tensor) -> None:
        if logits.ndim < 2:
            raise ValueError(f"logits must have shape [N, C, *spatial], got {tuple(logits.shape)}")

    def _divergence(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor | None]:
        # 1 - q keeps its digits only as the sigmoid of the other sign
        parts = [
            expected(teacher.sigmoid(), functional.logsigmoid(teacher) - functional.logsigmoid(student)),
            expected((-teacher).sigmoid(), functional.logsigmoid(-teacher) - functional.logsigmoid(-student)),
        ]
        return parts[0] + parts[1], self._weights(student)


def _standardised(logits: Tensor) -> Tensor:
    """The z-scores over the classes; minus infinity stays, and counts neither in the mean nor in the deviation."""
    ruled_out = logits == -math.inf
    kept = logits.masked_fill(ruled_out, 0)
    count = (~ruled_out).to(logits.dtype).sum(dim=1, keepdim=True)
    centred = (kept - kept.sum(dim=1, keepdim=True) / count).masked_fill(ruled_out, 0)
    # equal logits have a norm of zero, whose gradient is zero, where that of a square root is infinite
    deviation = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / (count - 1).clamp_min(1).sqrt()
    return (centred / (1e-7 + deviation)).masked_fill(ruled_out, -math.inf)
