"""What the losses on features share: maps of unequal size, and vectors of length one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["check_maps", "pool_alike", "pool_to", "unit"]

_ADAPTIVE_AVG_POOL: dict[int, Callable[..., Tensor]] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


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
    scaled = values / largest.masked_fill(largest == 0, 1)
    norm = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
    return scaled / norm.masked_fill(norm == 0, 1)
