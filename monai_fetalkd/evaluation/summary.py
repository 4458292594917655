"""Finished networks side by side: how good they are, how sure that is, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import State
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_fetalkd.evaluation.cost import network_costs
from monai_fetalkd.evaluation.metrics import PredictionCollector
from monai_fetalkd.evaluation.scores import Predictions, check_output, evaluate, table, write_evaluation
from monai_fetalkd.utils.checkpoints import load_weights
from monai_fetalkd.utils.files import written_whole
from monai_fetalkd.utils.markdown import markdown_table

__all__ = ["Summary", "compare_networks"]

#: Network and its checkpoint, by name.
Networks = Mapping[str, tuple[nn.Module, str]]


class Summary:
    """Evaluates finished networks on one split, measures their cost, prints one table and writes ``metrics.json``.

    Beside it, ``predictions/`` gets a CSV file for each network. What the figures are and how their intervals come
    about: :func:`monai_fetalkd.evaluation.scores.evaluate`. Several ranks share the frames, and the first does the
        rest.

    Args:
        evaluator: MONAI evaluator over the loader of the split, in the order of its dataset, whose output holds
            probabilities as ``pred``; it is run once for each network.
        networks: network and its checkpoint, by name, in the order of the table.
        class_names: the class table.
        image_shape: channels and size of a frame, such as ``(1, 224, 224)``.
        output_dir: folder for ``metrics.json`` and ``predictions/``.
        log_dir: folder of the logs, to tell the reader; None is ``output_dir``.
        validation: evaluator over other frames, from which the temperature of each network is fitted; None fits none.
        settings: what belongs beside the figures (seed, data, versions); plain values, written as they are.
        split: what the frames are called.
        repeats: resamples of the bootstrap.
        overwrite: whether an older result in ``output_dir`` may be replaced.
    """

    def __init__(
        self,
        evaluator: SupervisedEvaluator,
        networks: Networks,
        class_names: Sequence[str],
        image_shape: Sequence[int],
        output_dir: str | PathLike[str],
        log_dir: str | PathLike[str] | None = None,
        validation: SupervisedEvaluator | None = None,
        settings: Mapping[str, object] | None = None,
        split: str = "testing",
        repeats: int = 1000,
        overwrite: bool = False,
    ) -> None:
        self.evaluator = evaluator
        self.networks = dict(networks)
        self.class_names = tuple(class_names)
        self.image_shape = tuple(image_shape)
        self.output_dir = Path(output_dir)
        self.log_dir = self.output_dir if log_dir is None else Path(log_dir)
        self.validation = validation
        self.settings = dict(settings or {})
        self.split = split
        self.repeats = repeats
        self.overwrite = overwrite

    def __call__(self) -> dict[str, Any]:
        """Evaluate, print and write.

        Returns:
            The content of ``metrics.json``; nothing on other ranks than the first.

        Raises:
            FileExistsError: when there is an older result that may not be replaced.
            FileNotFoundError, ValueError: when a checkpoint is missing or belongs to another network.
        """
        check_output({}, self.output_dir, self.overwrite)
        _load_all(self.networks)
        predictions = self._predictions(self.evaluator)
        validation = None if self.validation is None else self._predictions(self.validation)
        if idist.get_rank() > 0:
            return {}
        check_output(predictions, self.output_dir, self.overwrite)
        costs = network_costs(list(self.networks.values()), self.image_shape)
        content = evaluate(
            predictions,
            validation=validation,
            costs={name: cost.as_dict() for name, cost in zip(self.networks, costs, strict=True)},
            settings=self.settings,
            split=self.split,
            repeats=self.repeats,
        )
        write_evaluation(content, predictions, self.output_dir, self.overwrite)
        _, checkpoint = next(iter(self.networks.values()))
        print(f"\n{table(content)}\n")
        print(f"checkpoints  {Path(checkpoint).parent}")
        print(f"this table   {self.output_dir / 'metrics.json'} (with all other figures, settings and versions)")
        print(f"logs         {self.log_dir} (log.txt, and TensorBoard's curves)")
        return content

    def _predictions(self, evaluator: SupervisedEvaluator) -> dict[str, Predictions]:
        collector = PredictionCollector(evaluator.data_loader.dataset.data, self.class_names)
        collector.attach(evaluator)
        return {name: collector.predictions for name, _ in _run_each(evaluator, self.networks)}


def compare_networks(
    evaluator: SupervisedEvaluator,
    networks: Networks,
    image_shape: Sequence[int],
    output: str | PathLike[str],
    repeats: int = 40,
) -> dict[str, Any]:
    """Evaluate finished networks on the same data, measure their cost, print one table and write it as JSON.

    For classification :class:`Summary` says more: intervals, comparisons in pairs, calibration.

    Args:
        evaluator: MONAI evaluator with its metrics; it is run once for each network.
        networks: network and its checkpoint, by name, in the order of the table.
        image_shape: channels and size of an image or patch, for the cost.
        output: the JSON file; an older one is replaced.
        repeats: runs of each network that count for its time; fewer for networks that take seconds.

    Returns:
        What is written: for each network its ``"metrics"`` (a metric by class as a list) and its ``"cost"``.

    Raises:
        FileNotFoundError, ValueError: when a checkpoint is missing or belongs to another network.
    """
    _load_all(networks)
    metrics = {
        name: {key: torch.as_tensor(value).tolist() for key, value in state.metrics.items()}
        for name, state in _run_each(evaluator, networks)
    }
    costs = network_costs(list(networks.values()), image_shape, repeats)
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
    rows = [["network", *shown, "parameters", "MMAC", "ms on one core"]]
    for name, row in content.items():
        cost = row["cost"]
        size = [f"{cost['parameters']:,}", f"{cost['macs'] / 1e6:.1f}", f"{cost['milliseconds']['median']:.1f}"]
        rows.append([name, *(f"{row['metrics'][key]:.3f}" for key in shown), *size])
    return markdown_table(rows)


def _load_all(networks: Networks) -> None:
    """Load each checkpoint before any work is done, so that one that is missing ends it at once."""
    for network, path in networks.values():
        load_weights(network, path)


def _run_each(evaluator: SupervisedEvaluator, networks: Networks) -> Iterator[tuple[str, State]]:
    """Run the evaluator with one network after the other; its state is that of the last."""
    for name, (network, _) in networks.items():
        evaluator.network = network
        evaluator.run()
        yield name, evaluator.state
