"""Finished networks side by side: how well they recognise, how sure that is, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_fetalkd.checkpoints import load_weights
from monai_fetalkd.cost import network_costs
from monai_fetalkd.evaluation import Predictions, check_output, evaluate, table, write_evaluation
from monai_fetalkd.handlers import PredictionCollector

__all__ = ["Summary"]


class Summary:
    """Evaluates finished networks on one split, measures their cost, prints one table and writes ``metrics.json``.

    Beside it, ``predictions/`` gets a CSV file for each network. What the figures are and how their intervals come
    about: :func:`monai_fetalkd.evaluation.evaluate`. Several ranks share the frames, and the first does the rest.

    Args:
        evaluator: MONAI evaluator over the loader of the split, in the order of its dataset, whose output holds
            probabilities as ``pred``; it is run once for each network.
        networks: network and its checkpoint, by name, in the order of the table.
        class_names: the class table.
        image_shape: channels and size of a frame, such as ``(1, 224, 224)``.
        output_dir: folder for ``metrics.json`` and ``predictions/``.
        log_dir: folder of the logs, to tell the reader.
        validation: evaluator over other frames, from which the temperature of each network is fitted; None fits none.
        settings: what belongs beside the figures (seed, data, versions); plain values, written as they are.
        split: what the frames are called.
        repeats: resamples of the bootstrap.
        overwrite: whether an older result in ``output_dir`` may be replaced.
    """

    def __init__(
        self,
        evaluator: SupervisedEvaluator,
        networks: Mapping[str, tuple[nn.Module, str]],
        class_names: Sequence[str],
        image_shape: Sequence[int],
        output_dir: str | PathLike[str],
        log_dir: str | PathLike[str],
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
        self.log_dir = Path(log_dir)
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
        for network, path in self.networks.values():
            load_weights(network, path)
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
        predictions = {}
        for name, (network, _) in self.networks.items():
            evaluator.network = network
            evaluator.run()
            predictions[name] = collector.predictions
        return predictions
