"""What a network costs: parameters, arithmetic, file size, time and memory of one frame."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Cost", "frame_milliseconds", "multiply_accumulates", "network_costs", "peak_memory"]

_WARM_UP = 2


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: number of parameters.
        macs: multiply-accumulates for one frame.
        bytes: size of the file of its weights.
        milliseconds: time of one frame at batch 1 on one thread of the CPU, ``"median"`` and ``"p95"``.
        peak_memory_bytes: weights, and the most bytes of other tensors that live at once while one frame passes.
    """

    parameters: int
    macs: int
    bytes: int
    milliseconds: dict[str, float]
    peak_memory_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def network_costs(
    networks: Sequence[tuple[nn.Module, str | PathLike[str]]], image_shape: Sequence[int], repeats: int = 40
) -> list[Cost]:
    """What each network costs, on one thread of the CPU, the networks taking turns.

    Args:
        networks: each network and the file of its weights; the weights are not read.
        image_shape: channels and size of a frame.
        repeats: runs of each network that count for the time.

    Returns:
        A cost for each network.
    """
    times = frame_milliseconds([network for network, _ in networks], image_shape, repeats)
    return [
        Cost(
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            macs=multiply_accumulates(network, image_shape),
            bytes=Path(path).stat().st_size,
            milliseconds={"median": float(np.median(row)), "p95": float(np.quantile(row, 0.95))},
            peak_memory_bytes=peak_memory(network, image_shape),
        )
        for (network, path), row in zip(networks, times, strict=True)
    ]


def multiply_accumulates(network: nn.Module, image_shape: Sequence[int]) -> int:
    """Multiply-accumulates of convolutions and matrix products for one frame, by PyTorch's flop counter.

    Args:
        network: the network; it is left in its mode.
        image_shape: channels and size of a frame.

    Returns:
        Half the floating point operations that the counter reports.

    Example:
        >>> multiply_accumulates(nn.Linear(10, 3), (10,))
        30
    """
    with eval_mode(network), FlopCounterMode(display=False) as counter:
        network(_frame(network, image_shape))
    return counter.get_total_flops() // 2


def peak_memory(network: nn.Module, image_shape: Sequence[int]) -> int:
    """Bytes of the weights, and of the other tensors that live at once at most while one frame passes.

    These are the tensors that PyTorch's operators return, the frame among them. What a library allocates inside an
    operator, and the code of PyTorch itself, are not counted.

    Args:
        network: the network; it is left in its mode.
        image_shape: channels and size of a frame.

    Returns:
        The number of bytes.

    Example:
        >>> peak_memory(nn.Sequential(nn.Linear(10, 100, bias=False), nn.ReLU()), (10,))  # 1000 weights, 10 + 100 + 100
        4840
    """
    weights = {tensor.untyped_storage() for tensor in (*network.parameters(), *network.buffers())}
    with eval_mode(network), _LiveTensors(weights) as live:
        network(_frame(network, image_shape))
    return live.peak + sum(storage.nbytes() for storage in weights)


def frame_milliseconds(
    networks: Sequence[nn.Module], image_shape: Sequence[int], repeats: int = 40
) -> list[list[float]]:
    """Times of one frame at batch 1 on one thread of the CPU, the networks taking turns.

    Taking turns, in another order each time, lets a machine that is slow for a moment slow all of them alike: compare
    the figures with each other, not with those of another run. In one order, whoever comes after the largest network
    would be the one that has to wait on a busy machine.

    Args:
        networks: the networks; they are moved to the CPU for the measurement and back.
        image_shape: channels and size of a frame.
        repeats: runs of each network that count; two more come first to warm up.

    Returns:
        For each network the milliseconds of its ``repeats`` runs.
    """
    devices = [next(network.parameters()).device for network in networks]
    threads = torch.get_num_threads()
    frame = torch.zeros(1, *image_shape)
    times: list[list[float]] = [[] for _ in networks]
    order = np.random.default_rng(0)
    torch.set_num_threads(1)
    try:
        with eval_mode(*(network.cpu() for network in networks)):
            for _ in range(_WARM_UP + repeats):
                for place in order.permutation(len(networks)):
                    start = time.perf_counter()
                    networks[place](frame)
                    times[place].append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
        for network, device in zip(networks, devices, strict=True):
            network.to(device)
    return [row[_WARM_UP:] for row in times]


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that operators return, until nothing holds them any more."""

    def __init__(self, known: Iterable[torch.UntypedStorage]) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known = weakref.WeakSet(known)  # what operators return of these is a view

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.bytes -= size


def _frame(network: nn.Module, image_shape: Sequence[int]) -> Tensor:
    return torch.zeros(1, *image_shape, device=next(network.parameters()).device)
