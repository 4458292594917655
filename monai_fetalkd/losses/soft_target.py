"""Distillation through softened outputs (Hinton et al. 2015)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from monai_fetalkd._tensor import full_precision

__all__ = ["SoftTargetLoss"]

_REDUCTIONS = ("none", "mean", "sum")


class SoftTargetLoss(_Loss):
    r"""Kullback-Leibler divergence of the student's softened predictions from the teacher's.

    For one prediction with student logits :math:`s`, teacher logits :math:`t` and temperature :math:`T`:

    .. math::
        \ell = T^2 \, \mathrm{KL}\big(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T)\big)

    The factor :math:`T^2` keeps the size of the gradient when the temperature changes. A frame with logits ``[N, C]``
    holds one prediction; with per-voxel logits ``[N, C, *spatial]`` each voxel is one, and ``"mean"`` averages over all
    of them, as :class:`torch.nn.CrossEntropyLoss` does, so that both losses keep their balance at any image size.

    Other code bases: ``reduction="batchmean"`` divides by ``N`` only, which is the same for ``[N, C]`` and larger by
    the number of voxels otherwise; the default reduction of :class:`torch.nn.KLDivLoss` divides by ``N * C`` as well,
    which is smaller by the number of classes.

    Args:
        temperature: how much both predictions are softened, above 0; 1 leaves them as they are.
        reduction: ``"mean"`` over all predictions, their ``"sum"``, or ``"none"``.

    Raises:
        ValueError: when ``temperature`` is not positive and finite, or ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[8.0, 0.0, 4.0]])
        >>> SoftTargetLoss(temperature=4.0)(student, teacher)
        tensor(2.0698)

    References:
        Hinton G., Vinyals O., Dean J. Distilling the Knowledge in a Neural Network. 2015, arXiv:1503.02531.
    """

    def __init__(self, temperature: float = 4.0, reduction: str = "mean") -> None:
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction must be one of {_REDUCTIONS}, got {reduction!r}")
        super().__init__(reduction=reduction)
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare the logits of student and teacher.

        Args:
            input: logits of the student, ``[N, C, *spatial]`` with two or more classes; half precision is computed in
                float32.
            target: logits of the teacher, of the same shape. It never receives a gradient.

        Returns:
            A scalar, or ``[N, *spatial]`` with ``reduction="none"``.

        Raises:
            ValueError: when the shapes differ or are not those of logits over two or more classes.
        """
        if input.shape != target.shape:
            raise ValueError(
                "student and teacher logits must have the same shape, "
                f"got {tuple(input.shape)} and {tuple(target.shape)}"
            )
        check_logits(input)
        student = functional.log_softmax(full_precision(input) / self.temperature, dim=1)
        teacher = functional.log_softmax(full_precision(target.detach()) / self.temperature, dim=1)
        divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
        divergence = self.temperature**2 * divergence
        if self.reduction == "none":
            return divergence
        return divergence.mean() if self.reduction == "mean" else divergence.sum()


def check_logits(logits: Tensor) -> None:
    """Raise ``ValueError`` unless the logits are ``[N, C, *spatial]`` with ``C >= 2``."""
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise ValueError(
            "logits must have shape [N, C, *spatial] with two or more classes (the softmax of a single logit is "
            f"constant), got {tuple(logits.shape)}"
        )
