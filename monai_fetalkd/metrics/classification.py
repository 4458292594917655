"""Metrics of single-label classification that weigh every class alike.

They take class scores ``[N, C]`` (logits or probabilities) and integer labels ``[N]``. One-hot labels are refused by
their shape: with them, ignite's accuracy silently scores elementwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.metrics import EpochMetric
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import Tensor

__all__ = ["BalancedAccuracy", "MacroF1"]


class _LabelMetric(EpochMetric):
    def __init__(
        self,
        score: Callable[[Tensor, Tensor], float],
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        def compute(scores: Tensor, labels: Tensor) -> float:
            if scores.ndim != 2 or labels.ndim != 1:
                raise ValueError(
                    f"{type(self).__name__} takes scores [N, C] and integer labels [N], "
                    f"but got {tuple(scores.shape)} and {tuple(labels.shape)}."
                )
            return float(score(labels, scores.argmax(dim=1)))

        super().__init__(compute, output_transform=output_transform, check_compute_fn=False, device=device)


class BalancedAccuracy(_LabelMetric):
    """Mean of the recalls of the classes that occur among the labels (scikit-learn's ``balanced_accuracy_score``).

    Args:
        output_transform: from ``engine.state.output`` to ``(scores, labels)``, such as
            ``monai.handlers.from_engine(["pred", "label"])``.
        device: where scores and labels are gathered.

    Raises:
        ValueError: when scores are not ``[N, C]`` or labels not ``[N]``.

    Example:
        >>> metric = BalancedAccuracy()
        >>> metric.update((torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 0, 1])))
        >>> round(metric.compute(), 4)  # recalls 2/3 and 1
        0.8333
    """

    def __init__(self, output_transform: Callable = lambda output: output, **kwargs: Any) -> None:
        super().__init__(balanced_accuracy_score, output_transform, **kwargs)


class MacroF1(_LabelMetric):
    """Mean of the F1 scores of the classes that occur among labels or predictions (scikit-learn's ``f1_score``).

    Args:
        output_transform: as for :class:`BalancedAccuracy`.
        device: where scores and labels are gathered.

    Raises:
        ValueError: when scores are not ``[N, C]`` or labels not ``[N]``.

    Example:
        >>> metric = MacroF1()
        >>> metric.update((torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 0, 1])))
        >>> round(metric.compute(), 4)  # 0.8 and 2/3
        0.7333
    """

    def __init__(self, output_transform: Callable = lambda output: output, **kwargs: Any) -> None:
        super().__init__(lambda labels, classes: f1_score(labels, classes, average="macro"), output_transform, **kwargs)
