"""The loss of a step: its parts by name, and an end to the run when it is no number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor

__all__ = ["NonFiniteLossGuard", "loss_parts", "losses_of"]

_NOT_PARTS = {CommonKeys.IMAGE, CommonKeys.LABEL, CommonKeys.PRED}


def loss_parts(output: Mapping[str, Any] | list[Mapping[str, Any]]) -> dict[str, float]:
    """The loss and its parts out of a trainer's ``engine.state.output``, as numbers.

    Made for the ``output_transform`` of MONAI's ``StatsHandler`` and ``TensorBoardStatsHandler``: each part becomes a
    curve of its own.

    Args:
        output: the output of a step; decollated, each frame holds the scalars of the step as plain numbers.

    Returns:
        ``{"loss": ..., "ce": ..., "kd": ...}``, or whatever the trainer's parts are.

    Example:
        >>> loss_parts({"image": torch.zeros(1), "loss": torch.tensor(0.5), "kd": torch.tensor(0.25)})
        {'loss': 0.5, 'kd': 0.25}
    """
    step = output[0] if isinstance(output, list) else output
    scalars = {
        name: value
        for name, value in step.items()
        if name not in _NOT_PARTS and (isinstance(value, float) or (isinstance(value, Tensor) and value.ndim == 0))
    }
    tensors = {name: value.detach() for name, value in scalars.items() if isinstance(value, Tensor)}
    if tensors:  # all at once: each transfer would wait for the device
        numbers = torch.stack([value.float() for value in tensors.values()]).tolist()
        scalars.update(zip(tensors, numbers, strict=True))
    return scalars  # type: ignore[return-value]


def losses_of(engine: Engine) -> dict[str, float]:
    """The loss and its parts in this iteration, read from the device once beside a :class:`NonFiniteLossGuard`.

    Args:
        engine: the trainer.

    Returns:
        As :func:`loss_parts`.
    """
    known = getattr(engine.state, "losses", None)
    return loss_parts(engine.state.output) if known is None else known


class NonFiniteLossGuard:
    """Ends a run whose loss is NaN or infinite, before the step that would spoil the weights.

    To look at the loss is to wait for the device. So this is the one place where a step does so: it leaves the numbers
    in ``engine.state.losses``, and after the gradients in ``engine.state.output`` in place of the tensors.

    Args:
        stage: name of the stage for the message.

    Raises:
        FloatingPointError: by the run, in the iteration in which it happens.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def attach(self, engine: Engine) -> None:
        """Watch this trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, _tell)

    def __call__(self, engine: Engine) -> None:
        """Check the loss of the current iteration."""
        engine.state.losses = losses = loss_parts(engine.state.output)
        if math.isfinite(losses[CommonKeys.LOSS]):
            return
        values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise FloatingPointError(
            f"{self.stage}: the loss is not finite in epoch {engine.state.epoch}, iteration {engine.state.iteration} "
            f"({values}): lower the learning rate or look at the frames of this batch."
        )


def _tell(engine: Engine) -> None:
    engine.state.output.update(engine.state.losses)
