"""Finished networks side by side, by whatever metrics an evaluator has: segmentation, regression, any task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_fetalkd.checkpoints import load_weights
from monai_fetalkd.cost import network_costs
from monai_fetalkd.files import written_whole

__all__ = ["compare_networks"]


def compare_networks(
    evaluator: SupervisedEvaluator,
    networks: Mapping[str, tuple[nn.Module, str]],
    image_shape: Sequence[int],
    output: str | PathLike[str],
) -> dict[str, Any]:
    """Evaluate finished networks on the same data, measure their cost, print one table and write it as JSON.

    For classification :class:`monai_fetalkd.summary.Summary` says more: intervals, comparisons in pairs, calibration.

    Args:
        evaluator: MONAI evaluator with its metrics; it is run once for each network.
        networks: network and its checkpoint, by name, in the order of the table.
        image_shape: channels and size of an image or patch, for the cost.
        output: the JSON file; an older one is replaced.

    Returns:
        What is written: for each network its ``"metrics"`` (a metric by class as a list) and its ``"cost"``.

    Raises:
        FileNotFoundError, ValueError: when a checkpoint is missing or belongs to another network.
    """
    for network, path in networks.values():
        load_weights(network, path)
    metrics = {}
    for name, (network, _) in networks.items():
        evaluator.network = network
        evaluator.run()
        metrics[name] = {key: torch.as_tensor(value).tolist() for key, value in evaluator.state.metrics.items()}
    costs = network_costs(list(networks.values()), image_shape)
    content = {
        name: {"metrics": metrics[name], "cost": cost.as_dict()} for name, cost in zip(networks, costs, strict=True)
    }
    with written_whole(output) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(f"\n{_table(content)}\n\nThe table, and metrics by class, are in '{Path(output)}'.")
    return content


def _table(content: Mapping[str, Mapping[str, Any]]) -> str:
    shown = [
        key for key, value in next(iter(content.values()))["metrics"].items() if not isinstance(value, list)
    ]  # one number for each network
    lines = [
        f"| network | {' | '.join(shown)} | parameters | MMAC | ms on one core |",
        f"| --- |{' --- |' * (len(shown) + 3)}",
    ]
    for name, row in content.items():
        values = " | ".join(f"{row['metrics'][key]:.3f}" for key in shown)
        cost = row["cost"]
        size = f"{cost['parameters']:,} | {cost['macs'] / 1e6:.1f} | {cost['milliseconds']['median']:.1f}"
        lines.append(f"| {name} | {values} | {size} |")
    return "\n".join(lines)
