"""Weights of a loss that change with the epoch: ramps, decays, switches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ignite.engine import Engine, Events

from monai_fetalkd.losses import DistillationLoss

__all__ = ["LossWeightSchedule"]


class LossWeightSchedule:
    """Sets the weight of one part of a :class:`~monai_fetalkd.losses.DistillationLoss` at the start of each epoch.

    The weight is a line through the given points, and constant before the first and after the last of them. It depends
    on the epoch alone, so a run that is resumed goes on with the right one, and nothing of it is in the checkpoint.

    Args:
        loss: the loss of the trainer.
        part: name of the part: ``"ce"``, ``"kd"``, or that of a feature loss.
        points: pairs of an epoch, counted from 1, and a weight, in the order of the epochs. A switch is two points in
            epochs that follow each other.

    Raises:
        ValueError: when the loss has no such part, the epochs are not whole numbers that increase from 1 on, or a
            weight is negative or not finite.

    Example:
        >>> loss = DistillationLoss()
        >>> ramp = LossWeightSchedule(loss, "kd", [[1, 0.0], [11, 2.0]])  # up over ten epochs
        >>> ramp.weight(1), ramp.weight(6), ramp.weight(50)
        (0.0, 1.0, 2.0)

        In a config, among the handlers of the trainer; here attention ends after epoch 30:

        .. code-block:: json

            {"_target_": "monai_fetalkd.handlers.LossWeightSchedule", "loss": "@distill#loss", "part": "at",
             "points": [[30, 100.0], [31, 0.0]]}
    """

    def __init__(self, loss: DistillationLoss, part: str, points: Sequence[Sequence[float]]) -> None:
        weights = getattr(loss, "weights", {})
        if part not in weights:
            raise ValueError(f"{type(loss).__name__} has no part {part!r} with a weight, but {sorted(weights)}")
        if not points or any(len(point) != 2 for point in points):
            raise ValueError(
                f"points must be pairs of an epoch and a weight, such as [[1, 0.0], [10, 1.0]], got {points}"
            )
        self._epochs = [epoch for epoch, _ in points]
        self._weights = [float(weight) for _, weight in points]
        increasing = all(one < next_ for one, next_ in zip([0, *self._epochs], self._epochs, strict=False))
        if not increasing or any(epoch != int(epoch) for epoch in self._epochs):
            raise ValueError(f"the epochs of points must be whole numbers that increase, from 1 on, got {self._epochs}")
        if any(not 0 <= weight < math.inf for weight in self._weights):
            raise ValueError(f"weights must be finite and not negative, got {self._weights}")
        self.loss = loss
        self.part = part

    def weight(self, epoch: int) -> float:
        """The weight in an epoch, counted from 1."""
        return float(np.interp(epoch, self._epochs, self._weights))

    def attach(self, engine: Engine) -> None:
        """Set the weight at the start of each epoch of this trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the weight of the epoch that starts."""
        self.loss.weights[self.part] = self.weight(engine.state.epoch)
