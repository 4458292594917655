"""Finished networks side by side: how well they recognise, and what they cost."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import torch
from monai.engines import SupervisedEvaluator
from monai.networks.utils import eval_mode
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from monai_fetalkd.checkpoints import load_weights
from monai_fetalkd.files import written_whole

__all__ = ["NetworkSummary", "Summary", "frame_milliseconds", "multiply_accumulates"]


@dataclass(frozen=True)
class NetworkSummary:
    """One row of the table.

    Attributes:
        name: what the network is.
        metrics: metric by name, on the split that was evaluated.
        parameters: number of trainable parameters.
        macs: multiply-accumulates for one frame.
        milliseconds: median time of one frame at batch 1 on one thread of the CPU.
        checkpoint: file of the weights.
    """

    name: str
    metrics: dict[str, float]
    parameters: int
    macs: int
    milliseconds: float
    checkpoint: str


class Summary:
    """Evaluates finished networks on one split, measures their cost, prints one table and writes ``summary.json``.

    Args:
        evaluator: MONAI evaluator with the metrics, over the loader of the split; it is run once for each network.
        networks: network and its checkpoint, by name, in the order of the table.
        image_shape: channels and size of a frame, such as ``(1, 224, 224)``.
        output_dir: folder for ``summary.json``.
        log_dir: folder of the logs, to tell the reader.
        settings: what belongs beside the figures (seed, data, versions); plain values, printed and written as they are.
    """

    def __init__(
        self,
        evaluator: SupervisedEvaluator,
        networks: Mapping[str, tuple[nn.Module, str]],
        image_shape: Sequence[int],
        output_dir: str | PathLike[str],
        log_dir: str | PathLike[str],
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.networks = dict(networks)
        self.image_shape = tuple(image_shape)
        self.output_dir = Path(output_dir)
        self.log_dir = Path(log_dir)
        self.settings = dict(settings or {})

    def __call__(self) -> list[NetworkSummary]:
        """Evaluate, print and write.

        Returns:
            A row for each network.

        Raises:
            FileNotFoundError, ValueError: when a checkpoint is missing or belongs to another network.
        """
        for network, path in self.networks.values():
            load_weights(network, path)
        metrics = {name: self._metrics(network) for name, (network, _) in self.networks.items()}
        networks = [network for network, _ in self.networks.values()]
        times = frame_milliseconds(networks, self.image_shape)
        rows = [
            NetworkSummary(
                name=name,
                metrics=metrics[name],
                parameters=sum(parameter.numel() for parameter in network.parameters()),
                macs=multiply_accumulates(network, self.image_shape),
                milliseconds=milliseconds,
                checkpoint=str(path),
            )
            for (name, (network, path)), milliseconds in zip(self.networks.items(), times, strict=True)
        ]
        with written_whole(self.output_dir / "summary.json") as temporary:
            content = {"settings": self.settings, "networks": [asdict(row) for row in rows]}
            temporary.write_text(json.dumps(content, indent=4), encoding="utf-8")
        print(f"\n{_table(rows)}\n")
        print(", ".join(f"{name} {value}" for name, value in self.settings.items()))
        print(f"checkpoints  {Path(rows[0].checkpoint).parent}")
        print(f"this table   {self.output_dir / 'summary.json'}")
        print(f"logs         {self.log_dir} (log.txt, and TensorBoard's curves)")
        return rows

    def _metrics(self, network: nn.Module) -> dict[str, float]:
        self.evaluator.network = network
        self.evaluator.run()
        return {name: float(value) for name, value in self.evaluator.state.metrics.items()}


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
        network(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
    return counter.get_total_flops() // 2


def frame_milliseconds(networks: Sequence[nn.Module], image_shape: Sequence[int], repeats: int = 15) -> list[float]:
    """Median time of one frame at batch 1 on one thread of the CPU, the networks taking turns.

    Taking turns lets a machine that is slow for a moment slow all of them alike: compare the figures with each other,
    not with those of another run.

    Args:
        networks: the networks; they are moved to the CPU for the measurement and back.
        image_shape: channels and size of a frame.
        repeats: runs of each network that count; two more come first to warm up.

    Returns:
        Milliseconds for each network.
    """
    devices = [next(network.parameters()).device for network in networks]
    threads = torch.get_num_threads()
    frame = torch.zeros(1, *image_shape)
    times: list[list[float]] = [[] for _ in networks]
    torch.set_num_threads(1)
    try:
        with eval_mode(*(network.cpu() for network in networks)):
            for _ in range(repeats + 2):
                for network, row in zip(networks, times, strict=True):
                    start = time.perf_counter()
                    network(frame)
                    row.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
        for network, device in zip(networks, devices, strict=True):
            network.to(device)
    return [statistics.median(row[2:]) for row in times]


def _table(rows: Sequence[NetworkSummary]) -> str:
    """The rows in Markdown, columns aligned, so that it reads well on a terminal and in a README."""
    header = ["network", *rows[0].metrics, "parameters", "GMAC", "ms a frame"]
    body = [
        [
            row.name,
            *(f"{value:.3f}" for value in row.metrics.values()),
            f"{row.parameters / 1e6:.2f} M",
            f"{row.macs / 1e9:.3f}",
            f"{row.milliseconds:.1f}",
        ]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (header, *body)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *body]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
