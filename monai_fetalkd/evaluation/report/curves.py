"""Learning curves out of the event files that TensorBoard's handlers write."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

__all__ = ["Curve", "StageCurves", "read_curves"]

# without a validation nobody wrote down how long an epoch is
_BLOCKS_WITHOUT_EPOCHS = 20


@dataclass(frozen=True)
class Curve:
    """One scalar over time.

    Args:
        steps: optimizer steps, or epochs, ``[N]``, rising.
        values: its values, ``[N]``.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def averaged(self, block: int) -> Curve:
        """The mean of each ``block`` of values in turn, placed at the last step of the block.

        Args:
            block: how many values; what is left over at the end belongs to the last block.

        Returns:
            The shorter curve.

        Example:
            >>> Curve(np.arange(1, 6), np.array([1.0, 3.0, 5.0, 7.0, 8.0])).averaged(2)
            Curve(steps=array([2, 5]), values=array([2.        , 6.66666667]))
        """
        starts = block * np.arange(max(1, len(self.steps) // block))
        sizes = np.diff([*starts, len(self.steps)])
        return Curve(self.steps[starts + sizes - 1], np.add.reduceat(self.values, starts) / sizes)


@dataclass(frozen=True)
class StageCurves:
    """What one stage of training logged.

    Args:
        name: name of the stage.
        losses: the loss and its parts by name, for each optimizer step.
        accuracy: accuracy on the validation frames for each epoch, None for a stage without validation.
    """

    name: str
    losses: dict[str, Curve]
    accuracy: Curve | None

    @property
    def steps(self) -> int:
        """Optimizer steps of the stage."""
        return max((int(curve.steps[-1]) for curve in self.losses.values()), default=0)

    @property
    def steps_per_block(self) -> int:
        """Optimizer steps over which the loss is averaged: an epoch, or a twentieth of a stage without validation."""
        steps = max((len(curve.steps) for curve in self.losses.values()), default=1)
        blocks = _BLOCKS_WITHOUT_EPOCHS if self.accuracy is None else int(self.accuracy.steps[-1])
        return max(1, steps // blocks)


def read_curves(log_dir: str | os.PathLike[str], metrics: Collection[str] = ("accuracy",)) -> list[StageCurves]:
    """Read the curves of all stages below a folder.

    Where a run was resumed, or started anew in the same folder, the later values replace those from their step on.

    Args:
        log_dir: folder with one subfolder for each stage, as :class:`~monai_fetalkd.handlers.TrainingStage` writes it.
        metrics: names of metrics, to tell them from parts of the loss.

    Returns:
        The stages in the order in which they began; none where the folder is missing or holds no events.
    """
    stages = []
    for folder in sorted({path.parent for path in Path(log_dir).glob("*/events.out.tfevents.*")}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        tags = events.Tags()["scalars"]
        if not tags:
            continue
        began = min(events.Scalars(tag)[0].wall_time for tag in tags)
        losses = {tag: _curve(events, tag) for tag in tags if tag not in metrics}
        losses = dict(sorted(losses.items(), key=lambda item: item[0] != "loss"))  # the sum before its parts
        accuracy = _curve(events, "accuracy") if "accuracy" in tags else None
        stages.append((began, StageCurves(folder.name, losses, accuracy)))
    return [stage for _, stage in sorted(stages, key=lambda item: item[0])]


def _curve(events: EventAccumulator, tag: str) -> Curve:
    kept: list[tuple[int, float]] = []
    for event in events.Scalars(tag):
        while kept and kept[-1][0] >= event.step:
            kept.pop()
        kept.append((event.step, event.value))
    steps, values = zip(*kept, strict=True)
    return Curve(np.array(steps), np.array(values, dtype=np.float64))
