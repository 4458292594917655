"""Training a student on the grid of its INT8 file, so that it loses less there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .formats import usable_weight_bits

__all__ = ["fake_quantized"]

_WEIGHT_LEVELS = {7: 64, 8: 127}  # on either side of zero, by bits, as ONNX Runtime's quantiser has them
_ACTIVATION_LEVELS = 255
_WEIGHTED = (functional.linear, torch.conv1d, torch.conv2d, torch.conv3d)
_SUMS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__)


def fake_quantized(network: nn.Module, weight_bits: int | None = None) -> nn.Module:
    r"""Let a network compute as its INT8 file will, rounded to the same grids, while it stays trainable.

    Where :func:`~monai_fetalkd.deployment.export.write_int8` puts integers, at the operands of convolutions, linear
    layers and sums of two activations, values are rounded to

    .. math:: s \cdot \mathrm{round}(x / s)

    with, for weights, :math:`s = \max |w| / 127` by output channel (64 for seven bits) and, for activations, 256 levels
    between the least and the largest value of the batch, zero among them. Gradients pass the rounding as if it were not
    there [1]. Batch norm, which the file folds into the weights, scales a channel as a whole and leaves these grids as
    they are.

    Parameters, buffers and their names stay the same: a checkpoint made before loads into the network, and its
    checkpoints load into any other. It cannot be compiled or exported itself; export a plain one.

    Args:
        network: the network, changed in place.
        weight_bits: those of the INT8 file, see :func:`~monai_fetalkd.deployment.export.formats.usable_weight_bits`.

    Returns:
        The same network.

    References:
        [1] Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, arXiv:1712.05877.

    Example:
        >>> network = fake_quantized(nn.Linear(2, 1, bias=False), weight_bits=7)
        >>> _ = network.load_state_dict({"weight": torch.tensor([[64.0, 1.4]])})
        >>> network(torch.tensor([[0.0, 255.0]]))
        tensor([[255.]], grad_fn=<MmBackward0>)
    """
    network.forward = _OnGrid(network.forward, _WEIGHT_LEVELS[usable_weight_bits(weight_bits)])
    return network


class _OnGrid:
    """A forward pass inside the mode; a class, so that a copy of the network gets a pass of its own."""

    def __init__(self, forward: Callable[..., Any], weight_levels: int) -> None:
        self.forward = forward
        self.weight_levels = weight_levels

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _RoundedOperands(self.weight_levels):
            return self.forward(*args, **kwargs)


class _RoundedOperands(TorchFunctionMode):
    """Rounds the operands of what the INT8 file computes in integers."""

    def __init__(self, weight_levels: int) -> None:
        super().__init__()
        self.weight_levels = weight_levels

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _WEIGHTED:
            args = (_rounded_activation(args[0]), _rounded_weight(args[1], self.weight_levels), *args[2:])
        elif func in _SUMS and isinstance(args[1], Tensor) and args[0].is_floating_point():
            # not in place: rounding would be lost on, and gradients needed of, what the sum overwrites
            func, args = torch.add, (_rounded_activation(args[0]), _rounded_activation(args[1]))
        return func(*args, **(kwargs or {}))


def _rounded_weight(weight: Tensor, levels: int) -> Tensor:
    largest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    scale = (largest / levels).clamp_min(torch.finfo(weight.dtype).tiny)
    return _straight_through(weight, (weight.detach() / scale).round() * scale)


def _rounded_activation(values: Tensor) -> Tensor:
    fixed = values.detach()
    low, high = fixed.amin().clamp_max(0), fixed.amax().clamp_min(0)
    scale = ((high - low) / _ACTIVATION_LEVELS).clamp_min(torch.finfo(values.dtype).tiny)
    zero = (-low / scale).round()
    levels = (fixed / scale + zero).round().clamp(0, _ACTIVATION_LEVELS)
    return _straight_through(values, (levels - zero) * scale)


def _straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    return values + (rounded - values).detach()
