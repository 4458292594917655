"""How a network is called on a batch: in which precision, and in which memory layout."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any
from weakref import WeakSet

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

__all__ = ["PrecisionInferer"]

_DTYPES = ("float32", "bfloat16", "float16")
_HALF = (torch.bfloat16, torch.float16)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class PrecisionInferer(Inferer):
    """Call a network under autocast and, where asked for, with its channels last in memory.

    MONAI's own ``amp=True`` is for CUDA alone. An inferer works in every MONAI trainer and evaluator and on every
    device: a CPU with bfloat16 instructions gains as a GPU does. Tensors of half precision leave it in float32, in
    tuples, lists, mappings and dataclasses too, so that any loss is computed in full precision. What taps capture
    inside is in ``dtype``; the losses of this package raise it.

    It wraps any other inferer, such as ``SlidingWindowInferer``. Each window is then computed in ``dtype``, and windows
    are put together in float32. The wrapped inferer is handed a function of the batch instead of the network, so it
    cannot be one that looks inside the network, such as ``SaliencyInferer``.

    The first call of a network converts its weights to the layout, in place: the parameters that an optimizer holds
    stay the same objects, and checkpoints do not notice. ``DistributedDataParallel`` fixes the layout of its buckets
    when it is built: call ``network.to(memory_format=torch.channels_last)`` before wrapping.

    Training in ``"float16"`` needs the gradient scaler that ``amp=True`` brings; ``"bfloat16"`` needs none.

    Args:
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; it holds whatever autocast surrounds the call, so with
            ``"float32"`` there is none.
        channels_last: whether inputs and weights of networks in two or three dimensions are laid out channels last.
        inferer: how the network is called; default MONAI's ``SimpleInferer``, which calls it once with the whole batch.

    Raises:
        ValueError: for another ``dtype``, and by the call, for ``"float16"`` on a CPU.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))
        >>> infer = PrecisionInferer(dtype="bfloat16", channels_last=True)
        >>> logits = infer(torch.rand(2, 1, 16, 16), network)
        >>> logits.dtype, network[0].weight.dtype
        (torch.float32, torch.float32)

        In a config, around sliding windows:

        .. code-block:: json

            "inferer": {"_target_": "monai_fetalkd.inferers.PrecisionInferer", "dtype": "bfloat16",
                        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96]}}
    """

    def __init__(self, dtype: str = "float32", channels_last: bool = False, inferer: Inferer | None = None) -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {_DTYPES}, got {dtype!r}")
        self.dtype = dtype
        self.channels_last = channels_last
        self.inferer = SimpleInferer() if inferer is None else inferer
        self._converted: WeakSet[nn.Module] = WeakSet()

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the network.

        Args:
            inputs: the batch, ``[N, C, *spatial]``.
            network: the network, or any function of the batch, whose weights then keep their layout.
            args: passed on to the network, by way of the wrapped inferer.
            kwargs: passed on likewise.

        Returns:
            What the network returned, with tensors of half precision as float32.
        """

        def call(batch: Tensor, *args: Any, **kwargs: Any) -> Any:
            return self._call(batch, network, *args, **kwargs)

        return self.inferer(inputs, call, *args, **kwargs)

    def _call(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        device = inputs.device.type
        if self.dtype == "float16" and device == "cpu":
            raise ValueError("float16 on a CPU is slow and needs a gradient scaler: use bfloat16, or float32.")
        if self.channels_last and inputs.ndim in _CHANNELS_LAST:
            # not contiguous(): that leaves one channel as it is, and the network's first layers with it
            inputs = inputs.to(memory_format=_CHANNELS_LAST[inputs.ndim])
            if isinstance(network, nn.Module) and network not in self._converted:
                _convert(network)
                self._converted.add(network)
        with torch.autocast(device, dtype=getattr(torch, self.dtype), enabled=self.dtype != "float32"):
            output = network(inputs, *args, **kwargs)
        return _in_float32(output)

    def __reduce__(self) -> tuple[Any, ...]:
        return PrecisionInferer, (
            self.dtype,
            self.channels_last,
            self.inferer,
        )  # a copy does not copy the networks it has seen


@torch.inference_mode(mode=False)  # weights made in that mode could not be trained afterwards
def _convert(network: nn.Module) -> None:
    """Lay out the weights channels last, each for its own number of dimensions."""
    for parameter in network.parameters():
        if parameter.ndim in _CHANNELS_LAST:
            parameter.data = parameter.data.to(memory_format=_CHANNELS_LAST[parameter.ndim])


def _in_float32(output: Any) -> Any:
    """The output with its tensors of half precision in float32; an output without any is handed on as it is."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype in _HALF else output
    if isinstance(output, Mapping):
        parts = {key: _in_float32(part) for key, part in output.items()}
        if all(parts[key] is part for key, part in output.items()):
            return output
        if not isinstance(output, MutableMapping):
            return parts
        output = copy.copy(output)
        output.update(parts)
        return output
    if isinstance(output, (list, tuple)):
        values = [_in_float32(part) for part in output]
        if all(value is part for value, part in zip(values, output, strict=True)):
            return output
        return output._make(values) if hasattr(output, "_make") else type(output)(values)
    if is_dataclass(output) and not isinstance(output, type):
        output = copy.copy(output)
        for name in (field.name for field in fields(output)):
            object.__setattr__(output, name, _in_float32(getattr(output, name)))  # a frozen one's too
    return output
