"""All that a stage of training needs around its trainer, in one handler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.engines import Evaluator, Trainer
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler
from monai.utils import optional_import
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .checkpoint import StageCheckpoint
from .global_batch import GlobalBatch
from .loss import NonFiniteLossGuard, losses_of
from .progress import ProgressLogger
from .seed import EpochSeeder

__all__ = ["TrainingStage"]

logger = logging.getLogger(__name__)

SummaryWriter, has_tensorboard = optional_import("torch.utils.tensorboard", name="SummaryWriter")


class TrainingStage:
    """One stage of training: seeded, guarded, scheduled, logged and kept on disk.

    Attaches :class:`EpochSeeder`, :class:`NonFiniteLossGuard`, :class:`GlobalBatch`, MONAI's ``LrScheduleHandler`` (a
    step of the schedule for each iteration), MONAI's ``TensorBoardStatsHandler`` (every loss part, and the evaluator's
    metrics), :class:`ProgressLogger` and :class:`StageCheckpoint`. Each of them can be used alone. Of several ranks,
    the first alone logs and writes.

    Args:
        name: name of the stage in logs and messages.
        network: the network that the stage trains.
        optimizer: its optimizer.
        lr_scheduler: schedule of the learning rate, counted in iterations; ``ReduceLROnPlateau`` is stepped with the
            evaluator's key metric after each validation; None keeps the rate.
        dataset: dataset of the training frames, whose random transforms are seeded.
        path: file for the weights, see :class:`StageCheckpoint`.
        log_dir: folder for TensorBoard; the stage writes into its subfolder ``name``.
        seed: seed of the run.
        evaluator: evaluator that a ``ValidationHandler`` runs after each epoch, or None.
        start_from: checkpoint of the preceding stage, or None.
        resume: continue a stage that was interrupted.
        to_save: further things to keep in the checkpoint, see :class:`StageCheckpoint`.
        ema_decay: keep an exponential average of the network's weights (ignite's ``EMAHandler``) with this share of the
            old at each step, such as 0.999; the evaluator then validates the average, and the average goes into
            ``path``. None keeps none.
        describe: see :class:`StageCheckpoint`.

    Raises:
        ValueError: when ``lr_scheduler`` follows a metric and there is no evaluator, or ``ema_decay`` is not between 0
            and 1.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler | ReduceLROnPlateau | None,
        dataset: Any,
        path: str | PathLike[str],
        log_dir: str | PathLike[str],
        seed: int,
        evaluator: Evaluator | None = None,
        start_from: str | PathLike[str] | None = None,
        resume: bool = False,
        to_save: Mapping[str, Any] | None = None,
        ema_decay: float | None = None,
        describe: Callable[[Path], None] | None = None,
    ) -> None:
        follows_metric = isinstance(lr_scheduler, ReduceLROnPlateau)
        if follows_metric and evaluator is None:
            raise ValueError(
                f"{name}: ReduceLROnPlateau follows the metric of an evaluator: give one, or another schedule."
            )
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ValueError(f"{name}: ema_decay must be between 0 and 1, got {ema_decay}.")
        self.evaluator = evaluator
        self.log_dir = Path(log_dir) / name
        self.lr_scheduler = lr_scheduler
        self._ema = None if ema_decay is None else EMAHandler(network, 1 - ema_decay, handle_buffers="update")
        average = None if self._ema is None else self._ema.ema_model
        if average is not None and evaluator is not None:
            evaluator.network = average
        self._handlers: list[Any] = [EpochSeeder(dataset, seed), NonFiniteLossGuard(name), GlobalBatch(network)]
        if lr_scheduler is not None and not follows_metric:
            self._handlers.append(LrScheduleHandler(lr_scheduler, print_lr=False, epoch_level=False))
        keeper = StageCheckpoint(
            network, path, optimizer, lr_scheduler, evaluator, start_from, resume, to_save, average, describe
        )
        self._handlers.append(keeper)
        self._progress = ProgressLogger(name, evaluator)
        self._has_board = False

    def attach(self, engine: Trainer) -> None:
        """Attach all of it to this trainer, and the curves of the metrics to the evaluator."""
        if self._ema is not None:
            self._ema.attach(engine)
        for handler in self._handlers:
            handler.attach(engine)
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            LrScheduleHandler(self.lr_scheduler, print_lr=False, step_transform=_key_metric).attach(self.evaluator)
        self._attach_logs(engine)

    @idist.one_rank_only()
    def _attach_logs(self, engine: Trainer) -> None:
        self._progress.attach(engine)
        if has_tensorboard:
            # after the checkpoint, which tells where a resumed stage goes on
            engine.add_event_handler(Events.STARTED, self._open_board)
        else:
            logger.info("There are no curves of the training, as tensorboard is not installed.")

    def _open_board(self, engine: Trainer) -> None:
        if self._has_board:  # a trainer may run several times
            return
        self._has_board = True
        # made here, since a TensorBoard writer creates its folder, and a stage that never runs should leave none
        going_on = engine.state.iteration
        # what a killed run has written after its last whole epoch is written again
        writer = SummaryWriter(str(self.log_dir), purge_step=going_on + 1 if going_on else None)
        board = TensorBoardStatsHandler(writer, iteration_event_writer=_write_losses, epoch_log=False)
        metrics = TensorBoardStatsHandler(
            writer, iteration_log=False, global_epoch_transform=lambda _: engine.state.epoch
        )
        board.attach(engine)
        if self.evaluator is not None:
            metrics.attach(self.evaluator)
        engine.add_event_handler(Events.COMPLETED, writer.flush)


def _write_losses(engine: Engine, writer: Any) -> None:
    for name, value in losses_of(engine).items():
        writer.add_scalar(name, value, engine.state.iteration)


def _key_metric(evaluator: Engine) -> float:
    return evaluator.state.metrics[evaluator.state.key_metric_name]
