"""Distillation through softened outputs (Hinton et al. 2015), for softmax and for sigmoid heads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from monai_fetalkd._tensor import full_precision, plain

__all__ = ["SigmoidSoftTargetLoss", "SoftTargetLoss"]

_REDUCTIONS = ("none", "mean", "sum")


class _SoftTargets(_Loss, ABC):
    """What both heads share: temperature, the weight of each prediction, and the reduction."""

    def __init__(
        self, temperature: float = 4.0, reduction: str = "mean", class_weights: Sequence[float] | None = None
    ) -> None:
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
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
        if input.shape != target.shape:
            raise ValueError(
                "student and teacher logits must have the same shape, "
                f"got {tuple(input.shape)} and {tuple(target.shape)}"
            )
        self._check(input)
        # autocast would lower some of what follows again
        with torch.autocast(input.device.type, enabled=False):
            student = full_precision(input) / self.temperature
            teacher = full_precision(target.detach()) / self.temperature
            divergence, weights = self._divergence(student, teacher)
            divergence = self.temperature**2 * divergence
            if mask is not None:
                present = _aligned(mask, divergence, input)
                weights = present if weights is None else weights * present
            return self._reduce(divergence, weights)

    def _reduce(self, divergence: Tensor, weights: Tensor | None) -> Tensor:
        if weights is not None:
            divergence = divergence * weights
        if self.reduction == "none":
            return divergence
        if self.reduction == "sum":
            return divergence.sum()
        if weights is None:
            return divergence.mean()
        total = weights.expand_as(divergence).sum()
        return divergence.sum() / total.clamp_min(torch.finfo(total.dtype).tiny)

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

    With class weights :math:`w`, a prediction counts :math:`\sum_c w_c \, \mathrm{softmax}(t / T)_c` times, and the mean
    divides by the sum of these counts. A class that the teacher rules out (a logit of minus infinity) adds nothing:
    :math:`0 \log 0 = 0`.

    Other code bases: ``reduction="batchmean"`` divides by ``N`` only, which is the same for ``[N, C]`` and larger by
    the number of voxels otherwise; the default reduction of :class:`torch.nn.KLDivLoss` divides by ``N * C`` as well,
    which is smaller by the number of classes.

    Args:
        temperature: how much both predictions are softened, above 0; 1 leaves them as they are.
        reduction: ``"mean"`` over all predictions, their ``"sum"``, or ``"none"``.
        class_weights: one weight for each class; None weighs all predictions by 1.

    Raises:
        ValueError: when ``temperature`` is not positive and finite, ``reduction`` is unknown, or a weight is negative.

    Example:
        >>> student, teacher = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[8.0, 0.0, 4.0]])
        >>> SoftTargetLoss(temperature=4.0)(student, teacher)
        tensor(2.0698)

    References:
        Hinton G., Vinyals O., Dean J. Distilling the Knowledge in a Neural Network. 2015, arXiv:1503.02531.
    """

    def _check(self, logits: Tensor) -> None:
        check_logits(logits)

    def _divergence(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor | None]:
        log_q, log_p = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
        q = log_q.exp()
        divergence = _expected(q, log_q - log_p).sum(dim=1)
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
            _expected(teacher.sigmoid(), functional.logsigmoid(teacher) - functional.logsigmoid(student)),
            _expected((-teacher).sigmoid(), functional.logsigmoid(-teacher) - functional.logsigmoid(-student)),
        ]
        return parts[0] + parts[1], self._weights(student)


def check_logits(logits: Tensor) -> None:
    """Raise ``ValueError`` unless the logits are ``[N, C, *spatial]`` with ``C >= 2``."""
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise ValueError(
            "logits must have shape [N, C, *spatial] with two or more classes (the softmax of a single logit is "
            f"constant: for sigmoid heads use SigmoidSoftTargetLoss and a label loss of that kind), "
            f"got {tuple(logits.shape)}"
        )


def _expected(probability: Tensor, log_ratio: Tensor) -> Tensor:
    # 0 log 0 = 0: where the probability is zero, the logarithm is infinite, perhaps on both sides
    return (probability * log_ratio).masked_fill(probability == 0, 0.0)


def _aligned(mask: Tensor, divergence: Tensor, logits: Tensor) -> Tensor:
    """The mask with the axes of the divergence: ``[N, *spatial]``, or ``[N, 1, *spatial]`` beside classes."""
    places = logits.shape[:1] + logits.shape[2:]
    mask = plain(mask)
    if mask.shape == (*places[:1], 1, *places[1:]):
        mask = mask.squeeze(1)
    if mask.shape != places:
        raise ValueError(
            f"the mask must have shape {tuple(places)}, one value for each prediction of logits of shape "
            f"{tuple(logits.shape)}, got {tuple(mask.shape)}"
        )
    mask = mask.to(divergence.dtype)
    return mask if divergence.shape == places else mask.unsqueeze(1)
