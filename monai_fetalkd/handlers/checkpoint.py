"""Where a stage of training starts from, and what it leaves on disk."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer
from torch import nn

from monai_fetalkd.checkpoints import load_weights, read_checkpoint, save_weights
from monai_fetalkd.files import written_whole

__all__ = ["StageCheckpoint", "WeightsLoader", "forget_stages"]

logger = logging.getLogger(__name__)

_RESUME_SUFFIX = "_resume.pt"


@idist.one_rank_only(with_barrier=True)
def forget_stages(folder: str | PathLike[str]) -> None:
    """Remove what an earlier run left to resume from, so that a new run is never resumed with stages of the old one.

    The weights of its networks stay until the stages of the new run replace them. Several ranks call it together.

    Args:
        folder: folder of the checkpoints; it may not exist yet.
    """
    for path in Path(folder).glob(f"*{_RESUME_SUFFIX}"):
        path.unlink()


class WeightsLoader:
    """Loads a checkpoint into a network when a run starts, such as the teacher of a distillation.

    Args:
        network: the network to fill.
        path: its checkpoint.

    Raises:
        FileNotFoundError, ValueError: by the run, as :func:`monai_fetalkd.checkpoints.load_weights` says.
    """

    def __init__(self, network: nn.Module, path: str | PathLike[str]) -> None:
        self.network = network
        self.path = path

    def attach(self, engine: Engine) -> None:
        """Load at the start of this engine's run."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights."""
        load_weights(self.network, self.path)


class StageCheckpoint:
    """Keeps one stage of training on disk, so that it can be used, and resumed after a kill at any moment.

    Two files are written, each whole or not at all:

    - ``path``: the network's state dict, for those who use it: of the best epoch by the evaluator's key metric and
      ``metric_cmp_fn``, or of the last epoch where there is no evaluator;
    - ``<path>_resume.pt``: after each epoch, all that the next epoch needs: network (under ``model``),
      optimizer, schedule, counters.

    A resumed stage continues after its last whole epoch; a finished one does not train again. With
    :class:`EpochSeeder` beside it, the result is the same as without the interruption.

    Of several ranks the first writes, and all read: ``path`` is in a folder that every machine of the job sees.

    Args:
        network: the network that the stage trains.
        path: file of its weights, such as ``models/teacher.pt``.
        optimizer: the stage's optimizer.
        lr_scheduler: its learning rate schedule.
        evaluator: evaluator that a ``ValidationHandler`` runs after each epoch, or None.
        start_from: checkpoint of the preceding stage to start from, or None to start from the network as it is.
        resume: continue from the resume file where it exists. Otherwise the stage starts anew.

    Raises:
        FileNotFoundError, ValueError: by the run, when ``start_from`` is missing or belongs to another network, or when
            the state to resume belongs to another network or to more epochs than asked for.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str | PathLike[str],
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        evaluator: Evaluator | None = None,
        start_from: str | PathLike[str] | None = None,
        resume: bool = False,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.state_path = self.path.with_name(f"{self.path.stem}{_RESUME_SUFFIX}")
        self.evaluator = evaluator
        self.start_from = start_from
        self.resume = resume
        # "model": whoever loads this file as weights, as MONAI Label lets its users, gets this network whole
        self._stateful = {"model": network, "optimizer": optimizer, "lr_scheduler": lr_scheduler}

    def attach(self, engine: Trainer) -> None:
        """Keep the stage that this trainer runs."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Trainer) -> None:
        # the first rank tells: a folder that another machine does not see must not make that one start anew
        if self.resume and idist.broadcast(int(self.state_path.is_file()), src=0):
            self._restore(engine)
        else:
            if self.start_from is not None:
                load_weights(self.network, self.start_from)
            self._forget()
        # registered here, not in attach(), to come after all handlers that validate or step the schedule
        if not engine.has_event_handler(self._save, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    @idist.one_rank_only(with_barrier=True)
    def _forget(self) -> None:
        self.state_path.unlink(missing_ok=True)  # of an earlier run, which nobody must resume from now on

    @idist.one_rank_only(with_barrier=True)  # the next stage reads on all ranks what the first has written
    def _save(self, engine: Trainer) -> None:
        if self.evaluator is None or self._just_improved(engine):
            save_weights(self.network, self.path)
        state = {name: item.state_dict() for name, item in self._stateful.items()}
        state["trainer"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        if self.evaluator is not None:
            state["best"] = _best(self.evaluator)
        with written_whole(self.state_path) as temporary:
            torch.save(state, temporary)

    def _just_improved(self, engine: Trainer) -> bool:
        # ValidationHandler runs the evaluator with the trainer's epoch as its own; before the first validation it is -1
        return self.evaluator.state.best_metric_epoch in (-1, engine.state.epoch)  # type: ignore[union-attr]

    def _restore(self, engine: Trainer) -> None:
        state = read_checkpoint(self.state_path, engine.state.device)
        epoch = state["trainer"]["epoch"]
        if epoch > engine.state.max_epochs:
            raise ValueError(
                f"'{self.state_path}' is a stage of {epoch} epochs and cannot be resumed with max_epochs "
                f"{engine.state.max_epochs}: ask for more epochs, or start anew without resume."
            )
        try:
            for name, item in self._stateful.items():
                item.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(
                f"'{self.state_path}' belongs to a run with other networks or settings: give those, another "
                "output_dir, or start anew without resume."
            ) from error
        engine.state.epoch, engine.state.iteration = epoch, state["trainer"]["iteration"]
        if self.evaluator is not None:
            for name, value in state["best"].items():
                setattr(self.evaluator.state, name, value)
        logger.info("%s resumed after epoch %d of %d.", self.state_path.stem, epoch, engine.state.max_epochs)


def _best(evaluator: Evaluator) -> dict[str, Any]:
    # a plain float: checkpoints are read back with weights_only, which refuses the scalars of numpy
    return {
        "best_metric": float(evaluator.state.best_metric),
        "best_metric_epoch": evaluator.state.best_metric_epoch,
    }
