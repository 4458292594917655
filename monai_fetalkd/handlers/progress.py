"""How far a run is, while it runs."""

from __future__ import annotations

import logging
import time
from collections import defaultdict

from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer

from .loss import losses_of

__all__ = ["ProgressLogger", "duration"]

logger = logging.getLogger(__name__)


class ProgressLogger:
    """Logs a line for each epoch, and every few seconds within a long one: loss parts, metric, time left.

    ``teacher  epoch  3/20  loss 0.412  ce 0.412  accuracy 0.871  1.8 s an epoch, 31 s left``

    The lines go to the logger ``monai_fetalkd.handlers.progress`` at level INFO; a higher level silences them.

    Args:
        stage: name of the stage, the first word of each line.
        evaluator: evaluator that a ``ValidationHandler`` runs after each epoch; its key metric joins the line.
        every: seconds between two lines within an epoch.
    """

    def __init__(self, stage: str, evaluator: Evaluator | None = None, every: float = 10.0) -> None:
        self.stage = stage
        self.evaluator = evaluator
        self.every = every
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._steps = 0

    def attach(self, engine: Trainer) -> None:
        """Follow this trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def _start(self, engine: Engine) -> None:
        self._started = self._last_line = time.monotonic()
        # registered here, not in attach(), to come after the validation of the epoch and with its metric
        if not engine.has_event_handler(self._complete_epoch, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._complete_epoch)

    def _start_epoch(self, engine: Engine) -> None:
        self._sums.clear()
        self._steps_of_epoch = 0

    def _step(self, engine: Engine) -> None:
        self._steps += 1
        self._steps_of_epoch += 1
        for name, value in losses_of(engine).items():
            self._sums[name] += value
        if time.monotonic() - self._last_line >= self.every:
            length = engine.state.epoch_length
            self._log(engine, f"step {self._steps_of_epoch}" + ("" if length is None else f"/{length}"))

    def _complete_epoch(self, engine: Engine) -> None:
        metric = ""
        if self.evaluator is not None and self.evaluator.state.metrics:
            name = self.evaluator.state.key_metric_name
            metric = f"{name} {self.evaluator.state.metrics[name]:.3f}"
        self._log(engine, metric)

    def _log(self, engine: Engine, note: str) -> None:
        self._last_line = time.monotonic()
        seconds = (self._last_line - self._started) / self._steps
        length = engine.state.epoch_length
        times = f"{duration(seconds)} a step"
        if length is not None:  # a loader that does not know its length tells it when the first epoch is over
            left = seconds * (engine.state.max_epochs * length - engine.state.iteration)
            times = f"{duration(seconds * length)} an epoch, {duration(left)} left"
        parts = "  ".join(f"{name} {total / self._steps_of_epoch:.4f}" for name, total in self._sums.items())
        width = len(str(engine.state.max_epochs))
        logger.info(
            "%s  epoch %*d/%d  %s  %s  %s",
            self.stage,
            width,
            engine.state.epoch,
            engine.state.max_epochs,
            parts,
            note,
            times,
        )


def duration(seconds: float) -> str:
    """A time for people.

    Args:
        seconds: the time.

    Returns:
        Its text.

    Example:
        >>> duration(2.34), duration(98), duration(4000)
        ('2.3 s', '1 min 38 s', '1 h 07 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
