"""What every loss does to the tensors it is given, whatever MONAI or autocast made of them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["full_precision", "plain"]


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor without MONAI's metadata, still on its autograd graph."""
    # by its method: the losses need torch alone, and other subclasses, as torch's own for tracing, stay what they are
    as_tensor = getattr(tensor, "as_tensor", None)
    return tensor if as_tensor is None else as_tensor()


def full_precision(tensor: Tensor) -> Tensor:
    """Return a plain tensor of at least float32, still on its autograd graph; float64 stays float64.

    Squares, exponentials and norms leave the range of half precision long before a network's outputs do: the square of
    a float16 feature of 300 is infinite, and that of 1e-4 is zero.
    """
    return plain(tensor).to(torch.promote_types(tensor.dtype, torch.float32))
