"""All scores of a validation at once, for the engines of ignite and MONAI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import EpochMetric
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

from monai_fetalkd.evaluation.scores import Predictions, scores

__all__ = ["ClassificationScores"]


class ClassificationScores(EpochMetric):
    """The scores of :func:`monai_fetalkd.evaluation.scores.classification` over all frames of an epoch.

    They take class probabilities ``[N, C]`` (of a softmax in float32, not logits) and integer labels ``[N]``. Each
    score becomes an entry of ``engine.state.metrics`` under its own name, for MONAI's statistics, TensorBoard and
    MLflow handlers to log; the name that the metric is attached by is not used. Frames of several ranks are scored
    together, however many each has.

    MONAI's evaluators take ``additional_metrics`` only beside a key metric. This can be the key metric too, under the
    name of one of its scores: ``key_val_metric={"macro_f1": ClassificationScores(...)}``.

    Args:
        class_names: names of the classes in the order of the columns.
        output_transform: from ``engine.state.output`` to ``(probabilities, labels)``, such as
            ``monai.handlers.from_engine(["pred", "label"])``.
        device: where probabilities and labels are gathered.

    Raises:
        ValueError: when probabilities are not ``[N, C]``, labels not ``[N]``, or the probabilities are none.

    Example:
        >>> metric = ClassificationScores(["abdomen", "brain", "other"])
        >>> metric.update((torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 0, 1])))
        >>> metric.compute()["accuracy"]
        0.75
    """

    def __init__(
        self,
        class_names: Sequence[str],
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        self.class_names = tuple(class_names)
        super().__init__(self._scores, output_transform=output_transform, check_compute_fn=False, device=device)

    def compute(self) -> Any:
        """The scores by name, the same on all ranks.

        Raises:
            NotComputableError: when there was no frame.
        """
        if not self._predictions:
            raise NotComputableError("ClassificationScores need one frame at least.")
        # ignite's own gathering takes as many frames from each rank, and its broadcast takes no mapping
        probabilities, labels = (
            evenly_divisible_all_gather(torch.cat(parts)) for parts in (self._predictions, self._targets)
        )
        return self.compute_fn(probabilities, labels)

    def completed(self, engine: Engine, name: str) -> None:
        """Enter each score into the metrics of the engine, and nothing else: loggers choke on a mapping among them."""
        engine.state.metrics.update(self.compute())

    def _scores(self, probabilities: Tensor, labels: Tensor) -> dict[str, float]:
        if probabilities.ndim != 2 or labels.ndim != 1:
            raise ValueError(
                f"ClassificationScores take probabilities [N, C] and integer labels [N], "
                f"but got {tuple(probabilities.shape)} and {tuple(labels.shape)}."
            )
        rows = [{"image": f"frame {number}", "label": label} for number, label in enumerate(labels.tolist())]
        return scores(Predictions.from_rows(self.class_names, rows, probabilities.double().cpu().numpy()))
