"""All that a stage of training needs around its trainer, in one handler."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.engines import Evaluator, Trainer
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler
from torch import nn

from .checkpoint import StageCheckpoint
from .global_batch import GlobalBatch
from .loss import NonFiniteLossGuard, loss_parts
from .progress import ProgressLogger
from .seed import EpochSeeder

__all__ = ["TrainingStage"]


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
        lr_scheduler: schedule of the learning rate, counted in iterations.
        dataset: dataset of the training frames, whose random transforms are seeded.
        path: file for the weights, see :class:`StageCheckpoint`.
        log_dir: folder for TensorBoard; the stage writes into its subfolder ``name``.
        seed: seed of the run.
        evaluator: evaluator that a ``ValidationHandler`` runs after each epoch, or None.
        start_from: checkpoint of the preceding stage, or None.
        resume: continue a stage that was interrupted.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        dataset: Any,
        path: str | PathLike[str],
        log_dir: str | PathLike[str],
        seed: int,
        evaluator: Evaluator | None = None,
        start_from: str | PathLike[str] | None = None,
        resume: bool = False,
    ) -> None:
        self.evaluator = evaluator
        self.log_dir = Path(log_dir) / name
        self._handlers = [
            EpochSeeder(dataset, seed),
            NonFiniteLossGuard(name),
            GlobalBatch(network),
            LrScheduleHandler(lr_scheduler, print_lr=False, epoch_level=False),
            StageCheckpoint(network, path, optimizer, lr_scheduler, evaluator, start_from, resume),
        ]
        self._progress = ProgressLogger(name, evaluator)

    def attach(self, engine: Trainer) -> None:
        """Attach all of it to this trainer, and the curves of the metrics to the evaluator."""
        for handler in self._handlers:
            handler.attach(engine)
        self._attach_logs(engine)

    @idist.one_rank_only()
    def _attach_logs(self, engine: Trainer) -> None:
        self._progress.attach(engine)
        # made here, since a TensorBoard writer creates its folder, and a stage that never runs should leave none
        board = TensorBoardStatsHandler(log_dir=str(self.log_dir), output_transform=loss_parts)
        board.attach(engine)
        if self.evaluator is not None:
            TensorBoardStatsHandler(
                summary_writer=board._writer,
                iteration_log=False,
                global_epoch_transform=lambda _: engine.state.epoch,
            ).attach(self.evaluator)
