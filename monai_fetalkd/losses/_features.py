"""What the losses on features share: maps of unequal size, vectors of length one, and classes of positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from monai_fetalkd.losses._labels import class_masks, resize_nearest
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["ClassFeatureLoss", "check_maps", "pool_alike", "pool_to", "unit"]

_ADAPTIVE_AVG_POOL: dict[int, Callable[..., Tensor]] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


class ClassFeatureLoss(_Loss, ABC):
    """A loss on the positions of each class: both features at one size, and where each class lies at that size.

    Args:
        num_classes: number of classes.

    Raises:
        ValueError: when there are fewer classes than the loss compares.
    """

    uses_label = True
    _LEAST_CLASSES = 1

    def __init__(self, num_classes: int) -> None:
        if not isinstance(num_classes, int) or num_classes < self._LEAST_CLASSES:
            raise ValueError(
                f"num_classes must be a whole number of at least {self._LEAST_CLASSES}, got {num_classes!r}"
            )
        super().__init__()
        self.num_classes = num_classes

    def forward(self, input: Tensor, target: Tensor, label: Tensor) -> Tensor:
        """Compare the features of student and teacher.

        Args:
            input: feature of the student, ``[N, C, *spatial]``.
            target: the teacher's, of any number of channels. It never receives a gradient.
            label: class indices, ``[N, *spatial]`` or ``[N, 1, *spatial]``, of any spatial size.

        Returns:
            A scalar.

        Raises:
            ValueError: when batch or the number of spatial dimensions differ, or the label holds no class indices.
        """
        check_maps(input, target)
        with torch.autocast(input.device.type, enabled=False):
            student, teacher = pool_alike(full_precision(input), full_precision(target.detach()))
            label = resize_nearest(label, student.shape[2:])
            return self._compare(student, teacher, class_masks(label, student, self.num_classes).flatten(2))

    @abstractmethod
    def _compare(self, student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
        """The loss of features ``[N, C, *spatial]`` whose classes lie where the masks ``[N, K, P]`` are true."""


def check_maps(student: Tensor, teacher: Tensor) -> None:
    """Raise ``ValueError`` unless both are ``[N, C, *spatial]`` of one batch and as many spatial dimensions."""
    shapes = f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
    if student.ndim != teacher.ndim or student.shape[:1] != teacher.shape[:1]:
        raise ValueError(
            f"student and teacher features must be of the same batch and number of spatial dimensions, {shapes}"
        )
    if student.ndim < 3:
        raise ValueError(
            f"features must have shape [N, C, *spatial] with at least one spatial dimension, {shapes}: tap a layer "
            "before the global pooling"
        )


def pool_alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average both ``[N, C, *spatial]`` over space to the elementwise minimum of their spatial sizes."""
    return pool_to(student, teacher), pool_to(teacher, student)


def pool_to(feature: Tensor, other: Tensor) -> Tensor:
    """Average a feature over space to the elementwise minimum of its own and the other's spatial size."""
    if feature.shape[2:] == other.shape[2:]:
        return feature
    size = tuple(map(min, feature.shape[2:], other.shape[2:]))
    if len(size) not in _ADAPTIVE_AVG_POOL:
        raise ValueError(
            "student and teacher features of unequal size must have one to three spatial dimensions, "
            f"got {tuple(feature.shape)} and {tuple(other.shape)}"
        )
    return _ADAPTIVE_AVG_POOL[len(size)](feature, size)


def unit(values: Tensor, dim: int) -> Tensor:
    """Divide vectors by their L2 norm, whatever their scale; a vector of zeros stays zero."""
    # a small vector would fall under the absolute epsilon of normalize(), and its squares out of float32
    largest = values.detach().abs().amax(dim=dim, keepdim=True)
    return functional.normalize(values / largest.masked_fill_(largest == 0, 1), dim=dim)
