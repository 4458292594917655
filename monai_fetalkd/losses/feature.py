"""A loss between two tensors, applied to hidden layers of student and teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from monai_fetalkd.layouts import Layout, channels_first
from monai_fetalkd.losses._labels import resize_nearest
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["FeatureLoss", "Features"]

Features = Tensor | Sequence[Tensor] | Mapping[str, Tensor]

# These broadcast unequal shapes and only warn; a hint between layers of unequal width needs an adapter instead.
_ELEMENTWISE = (nn.L1Loss, nn.MSELoss, nn.SmoothL1Loss, nn.HuberLoss)


class FeatureLoss(_Loss):
    r"""Weighted sum of one pairwise loss over the hidden layers of student and teacher.

    .. math::
        \mathcal{L} = \sum_l w_l \, \ell(s_l, t_l)

    With :class:`torch.nn.MSELoss` this is the hint loss of FitNets. Where the student is narrower than the teacher,
    give a :class:`~monai_fetalkd.losses.ProjectedLoss`, and hand ``parameters()`` of this loss to the optimizer too.
    The trainers of :mod:`monai_fetalkd.engines` keep the projector in the checkpoint of the stage and train one on all
    ranks.

    A pairwise loss with a class attribute ``uses_label = True`` is called as ``loss(student, teacher, label)``, with
    the label at the student's spatial size (nearest neighbour; for output ``i`` the input ``floor(i * in / out)``).

    Other code bases: FitNets writes half the squared norm of the difference, RepDistiller takes the mean over all
    elements (``MSELoss()``), torchdistill's sample configurations the sum (``MSELoss(reduction="sum")``).

    Args:
        loss: called as ``loss(student, teacher)`` for every pair of layers, with the label if it ``uses_label``;
            returns a scalar.
        layer_weights: one non-negative weight for each pair of layers; None weighs each by 1.
        layers: names of the student's layers that this loss compares, among those that the trainer taps; None compares
            all of them.

    Attributes:
        reduced: what :meth:`reduce` keeps of the teacher's features, in words; None where it keeps them whole.
        layout: how the axes of the features are laid out, for a loss that must know; None as the loss says.

    Raises:
        ValueError: when a weight is negative or not finite, or the weights are not as many as the layers named.

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

    reduced: str | None = None
    layout: Layout | None = None

    def __init__(
        self,
        loss: Callable[..., Tensor],
        layer_weights: Sequence[float] | None = None,
        layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if layer_weights is not None and any(not 0 <= weight < math.inf for weight in layer_weights):
            raise ValueError(f"layer_weights must be finite and not negative, got {list(layer_weights)}")
        if layers is not None and (isinstance(layers, str) or not layers):
            raise ValueError(f"layers must be a list of one or more layer names, such as ['layer4'], got {layers!r}")
        if layers is not None and layer_weights is not None and len(layers) != len(layer_weights):
            raise ValueError(
                f"layer_weights must name one weight for each layer, got {len(layer_weights)} for {len(layers)}"
            )
        self.loss = loss
        self.layer_weights = None if layer_weights is None else tuple(layer_weights)
        self.layers = None if layers is None else tuple(layers)

    @property
    def uses_label(self) -> bool:
        """Whether the pairwise loss is given the label."""
        return bool(getattr(self.loss, "uses_label", False))

    def forward(
        self, input: Features, target: Features, layout: Layout | None = None, label: Tensor | None = None
    ) -> Tensor:
        """Sum the weighted losses of all pairs of layers.

        Args:
            input: features of the student, ``[N, C, *spatial]``: one tensor, a sequence with one for each layer, or a
                mapping by name of the layer, from which a loss with ``layers`` takes its own.
            target: features of the teacher, in the order of the student's or under the same names. They never receive
                a gradient.
            layout: layout of these features, in place of the attribute.
            label: class indices, ``[N, *spatial]`` or ``[N, 1, *spatial]``, for a loss that uses them.

        Returns:
            A scalar.

        Raises:
            ValueError: as :meth:`per_layer`, and when the weights are not as many as the layers.
        """
        return self.total(self.per_layer(input, target, layout, label))

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

    def per_layer(
        self, input: Features, target: Features, layout: Layout | None = None, label: Tensor | None = None
    ) -> list[Tensor]:
        """Return the unweighted loss of every pair of layers, each a scalar that carries its gradient.

        Args:
            input: features of the student, as in :meth:`forward`.
            target: features of the teacher, as in :meth:`forward`.
            layout: as in :meth:`forward`.
            label: as in :meth:`forward`.

        Returns:
            One scalar for each pair, in the order given.

        Raises:
            ValueError: when there is no layer, the numbers of layers differ, a layer of the loss is missing, two
                features do not match (the message names both shapes), the label that the loss uses is missing, or the
                pairwise loss does not return a scalar.
        """
        students, teachers = self._chosen(input), self._chosen(target)
        if not students or len(students) != len(teachers):
            raise ValueError(
                "student and teacher must give features of equally many layers, one or more, "
                f"got {len(students)} and {len(teachers)}"
            )
        layout = self.layout if layout is None else layout
        return [self._pair(*pair, layout, label) for pair in zip(students, teachers, strict=True)]

    def reduce(self, teacher: Tensor, student: Tensor, layout: Layout | None = None) -> Tensor:
        """Reduce a feature of the teacher to what the loss needs of it, for those who keep it for later.

        The loss takes the result in place of the feature and has the same value, up to rounding.

        Args:
            teacher: feature of the teacher, ``[N, C, *spatial]``.
            student: the student's feature, of which only the size counts.
            layout: as in :meth:`forward`.

        Returns:
            The feature as it is; a loss with ``reduced`` returns less, not negative and at least float32.
        """
        return teacher

    def _chosen(self, features: Features) -> list[Tensor]:
        if isinstance(features, Tensor):
            return [features]
        if not isinstance(features, Mapping):
            return list(features)
        names = features if self.layers is None else self.layers
        if missing := [name for name in names if name not in features]:
            raise ValueError(f"there are no features of the layers {missing} that the loss compares: {list(features)}")
        return [features[name] for name in names]

    def _pair(self, student: Tensor, teacher: Tensor, layout: Layout | None, label: Tensor | None) -> Tensor:
        shapes = f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        if student.shape[:1] != teacher.shape[:1]:
            raise ValueError(f"student and teacher features must be of the same batch, {shapes}")
        if isinstance(self.loss, _ELEMENTWISE) and student.shape != teacher.shape:
            raise ValueError(
                f"{type(self.loss).__name__} needs student and teacher features of the same shape, {shapes}: "
                "tap other layers or give a loss with an adapter, such as a ProjectedLoss"
            )
        if layout is not None and student.ndim > 2:
            student, teacher = channels_first(student, layout), channels_first(teacher, layout)
        # Casting alone would not do: autocast lowers the matrix products inside a loss again.
        with torch.autocast(student.device.type, enabled=False):
            pair = full_precision(student), full_precision(teacher.detach())
            value = self.loss(*pair, self._label(label, student)) if self.uses_label else self.loss(*pair)
        if value.ndim:
            raise ValueError(f"the loss of a pair of layers must be a scalar, got shape {tuple(value.shape)}")
        return value

    def _label(self, label: Tensor | None, student: Tensor) -> Tensor:
        if label is None:
            raise ValueError(f"the label is missing, which {type(self.loss).__name__} uses: pass label")
        return resize_nearest(label, student.shape[2:])
