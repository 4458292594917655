"""A loss between two tensors, applied to hidden layers of student and teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from monai_fetalkd._tensor import full_precision

__all__ = ["FeatureLoss"]

# These broadcast unequal shapes and only warn; a hint between layers of unequal width needs an adapter instead.
_ELEMENTWISE = (nn.L1Loss, nn.MSELoss, nn.SmoothL1Loss, nn.HuberLoss)


class FeatureLoss(_Loss):
    r"""Weighted sum of one pairwise loss over the hidden layers of student and teacher.

    .. math::
        \mathcal{L} = \sum_l w_l \, \ell(s_l, t_l)

    With :class:`torch.nn.MSELoss` this is the hint loss of FitNets. Where the student is narrower than the teacher,
    give a module that holds a learnable adapter, and hand ``parameters()`` of this loss to the optimizer too.

    Other code bases: FitNets writes half the squared norm of the difference, RepDistiller takes the mean over all
    elements (``MSELoss()``), torchdistill's sample configurations the sum (``MSELoss(reduction="sum")``).

    Args:
        loss: called as ``loss(student, teacher)`` for every pair of layers; returns a scalar.
        layer_weights: one non-negative weight for each pair of layers; None weighs each by 1.

    Attributes:
        condensation: what :meth:`condense` keeps of the teacher's features, in words; None where it keeps them whole.

    Raises:
        ValueError: when a weight is negative or not finite.

    Example:
        >>> student = [torch.ones(2, 8, 4, 4), torch.ones(2, 16, 2, 2)]
        >>> teacher = [torch.zeros(2, 8, 4, 4), torch.full((2, 16, 2, 2), 3.0)]
        >>> loss = FeatureLoss(torch.nn.MSELoss(), layer_weights=[1.0, 0.5])
        >>> loss(student, teacher)
        tensor(3.)
        >>> loss.per_layer(student, teacher)
        [tensor(1.), tensor(4.)]

    References:
        Romero A. et al. FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv:1412.6550.
    """

    condensation: str | None = None

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], layer_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if layer_weights is not None and any(not 0 <= weight < math.inf for weight in layer_weights):
            raise ValueError(f"layer_weights must be finite and not negative, got {list(layer_weights)}")
        self.loss = loss
        self.layer_weights = None if layer_weights is None else tuple(layer_weights)

    def forward(self, input: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """Sum the weighted losses of all pairs of layers.

        Args:
            input: features of the student, ``[N, C, *spatial]``: one tensor, or a sequence with one for each layer.
            target: features of the teacher, in the order of the student's. They never receive a gradient.

        Returns:
            A scalar.

        Raises:
            ValueError: as :meth:`per_layer`, and when the weights are not as many as the layers.
        """
        return self.total(self.per_layer(input, target))

    def total(self, values: Sequence[Tensor]) -> Tensor:
        """Sum the values of :meth:`per_layer` with their weights, for those who want both and compute them once.

        Args:
            values: one scalar for each layer.

        Returns:
            A scalar.

        Raises:
            ValueError: when the weights are not as many as the layers.
        """
        weights = (1.0,) * len(values) if self.layer_weights is None else self.layer_weights
        if len(weights) != len(values):
            raise ValueError(f"layer_weights must name one weight for each layer, got {len(weights)} for {len(values)}")
        return torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum()

    def per_layer(self, input: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Return the unweighted loss of every pair of layers, each a scalar that carries its gradient.

        Args:
            input: features of the student, as in :meth:`forward`.
            target: features of the teacher, as in :meth:`forward`.

        Returns:
            One scalar for each pair, in the order given.

        Raises:
            ValueError: when there is no layer, the numbers of layers differ, two features do not match (the message
                names both shapes), or the pairwise loss does not return a scalar.
        """
        students = [input] if isinstance(input, Tensor) else list(input)
        teachers = [target] if isinstance(target, Tensor) else list(target)
        if not students or len(students) != len(teachers):
            raise ValueError(
                "student and teacher must give features of equally many layers, one or more, "
                f"got {len(students)} and {len(teachers)}"
            )
        return [self._pair(student, teacher) for student, teacher in zip(students, teachers, strict=True)]

    def condense(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Reduce a feature of the teacher to what the loss needs of it, for those who keep it for later.

        The loss takes the result in place of the feature and has the same value, up to rounding.

        Args:
            teacher: feature of the teacher, ``[N, C, *spatial]``.
            student: the student's feature, of which only the size counts.

        Returns:
            The feature as it is; a loss with a ``condensation`` returns less, not negative and at least float32.
        """
        return teacher

    def _pair(self, student: Tensor, teacher: Tensor) -> Tensor:
        shapes = f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        if student.shape[:1] != teacher.shape[:1]:
            raise ValueError(f"student and teacher features must be of the same batch, {shapes}")
        if isinstance(self.loss, _ELEMENTWISE) and student.shape != teacher.shape:
            raise ValueError(
                f"{type(self.loss).__name__} needs student and teacher features of the same shape, {shapes}: "
                "tap other layers or give a loss with an adapter"
            )
        # Casting alone would not do: autocast lowers the matrix products inside a loss again.
        with torch.autocast(student.device.type, enabled=False):
            value = self.loss(full_precision(student), full_precision(teacher.detach()))
        if value.ndim:
            raise ValueError(f"the loss of a pair of layers must be a scalar, got shape {tuple(value.shape)}")
        return value
