"""What a network answers for each frame, kept for metrics that need all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import evenly_divisible_all_gather
from monai.utils.enums import CommonKeys
from torch import Tensor
from torch.utils.data import DistributedSampler

from monai_fetalkd.evaluation.scores import Predictions

__all__ = ["PredictionCollector"]

_PRED_AND_LABEL = from_engine([CommonKeys.PRED, CommonKeys.LABEL])


class PredictionCollector:
    """Gathers the class probabilities of an evaluator's epoch, beside the rows of the datalist they belong to.

    After ``evaluator.run()``, ``predictions`` is the :class:`~monai_fetalkd.evaluation.scores.Predictions` of all
    frames, to be scored, compared and written. The loader keeps the order of the rows: no shuffling. Of several ranks
    each has all of them in the end, each frame once, also where a ``DistributedSampler`` has repeated some to give
    ranks as many.

    Args:
        rows: rows of the datalist in the order of the loader, ``dataset.data`` of its dataset: ``image``, ``label``
            and, where known, ``frame``, ``group``, ``source``, ``machine``.
        class_names: the class table.
        output_transform: from ``engine.state.output`` to ``(probabilities, labels)``, of the batch or of its frames.

    Raises:
        ValueError: by the run, when the labels that come by are not those of the rows, when frames are missing or too
            many, and for whatever ``Predictions`` refuses (NaN, probabilities that do not sum to one).

    Example:
        >>> from monai.engines import SupervisedEvaluator
        >>> rows = [{"image": "a.png", "label": 1, "group": "p1"}, {"image": "b.png", "label": 0, "group": "p2"}]
        >>> batch = {"image": torch.tensor([[0.2, 0.8], [0.6, 0.4]]), "label": torch.tensor([1, 0])}
        >>> evaluator = SupervisedEvaluator("cpu", [batch], torch.nn.Identity())
        >>> collector = PredictionCollector(rows, ["brain", "femur"])
        >>> collector.attach(evaluator)
        >>> evaluator.run()
        >>> collector.predictions.files
        ('a.png', 'b.png')
    """

    predictions: Predictions

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        class_names: Sequence[str],
        output_transform: Callable = _PRED_AND_LABEL,
    ) -> None:
        self.rows = rows
        self.class_names = tuple(class_names)
        self.output_transform = output_transform
        self._probabilities: list[Tensor] = []
        self._labels: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Follow this evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._complete)

    def _start(self, engine: Engine) -> None:
        self._probabilities.clear()
        self._labels.clear()

    def _collect(self, engine: Engine) -> None:
        probabilities, labels = self.output_transform(engine.state.output)
        self._probabilities.append(_batch(probabilities).double().cpu())
        self._labels.append(_batch(labels).cpu())

    def _complete(self, engine: Engine) -> None:
        positions = torch.tensor(list(_positions(engine, len(self.rows))))
        labels, probabilities = torch.cat(self._labels), torch.cat(self._probabilities)
        if len(labels) != len(positions):
            raise ValueError(
                f"The evaluator has seen {len(labels)} frames, but the datalist has {len(positions)}: "
                "let its loader neither drop nor repeat frames."
            )
        positions, labels, probabilities = map(evenly_divisible_all_gather, (positions, labels, probabilities))
        seen = {position: index for index, position in enumerate(positions.tolist())}
        if len(seen) != len(self.rows):
            raise ValueError(
                f"The ranks have seen {len(seen)} of the {len(self.rows)} frames of the datalist: let the samplers of "
                "their loaders share out all of them."
            )
        order = [seen[position] for position in range(len(self.rows))]
        for label, row in zip(labels[order].tolist(), self.rows, strict=True):
            if label != row.get(CommonKeys.LABEL, label):
                raise ValueError(
                    f"The frame '{row['image']}' has label {row['label']}, but the evaluator has seen {label} in its "
                    "place: let the loader keep the order of the datalist."
                )
        self.predictions = Predictions.from_rows(self.class_names, self.rows, probabilities[order].numpy())


def _positions(engine: Engine, count: int) -> Iterable[int]:
    """Positions in the datalist of the frames that this rank has seen, in their order."""
    sampler = getattr(engine.state.dataloader, "sampler", None)
    return sampler if isinstance(sampler, DistributedSampler) else range(count)


def _batch(values: Tensor | Sequence[Tensor]) -> Tensor:
    return values if isinstance(values, Tensor) else torch.stack([torch.as_tensor(value) for value in values])
