"""Where a stage of training starts from, and what it leaves on disk."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping, EMAHandler
from monai.engines import Evaluator, Trainer
from monai.handlers import EarlyStopHandler, ValidationHandler
from torch import nn

from monai_fetalkd.utils.checkpoints import load_weights, read_checkpoint, save_weights
from monai_fetalkd.utils.files import written_whole

from .schedule import Schedule

__all__ = ["StageCheckpoint", "WeightsLoader", "forget_stages"]

logger = logging.getLogger(__name__)

_RESUME_SUFFIX = "_resume.pt"
_OWN = {"model", "schedule", "loss", "scaler", "trainer", "best"}


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
        FileNotFoundError, ValueError: by the run, as :func:`monai_fetalkd.utils.checkpoints.load_weights` says.
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

    - ``path``: a state dict of the network (or of ``weights``), for those who use it: of the best epoch by the
      evaluator's key metric and ``metric_cmp_fn``, or of the last epoch where there is no evaluator;
    - ``<path>_resume.pt``: after each epoch, all that the next epoch needs: network (under ``model``), optimizer,
      schedule, counters; parameters of the loss and the gradient scaler where the trainer has them; ignite's and
      MONAI's early stopping and ignite's ``EMAHandler`` where they are attached to the trainer or to its validators;
      and whatever ``to_save`` names.

    A resumed stage continues after its last whole epoch. A finished one does not train again, also when early stopping
    has ended it. With :class:`EpochSeeder` beside it, the result is the same as without the interruption. Asked for
    another number of epochs or other settings of the optimizer, it goes on with those, see
    :class:`~monai_fetalkd.handlers.schedule.Schedule`.

    Of several ranks the first writes, and all read: ``path`` is in a folder that every machine of the job sees.

    Args:
        network: the network that the stage trains.
        path: file of its weights, such as ``models/teacher.pt``.
        optimizer: the stage's optimizer, not yet used.
        lr_scheduler: its learning rate schedule, not yet used, or None.
        evaluator: evaluator that a ``ValidationHandler`` runs after each epoch, or None.
        start_from: checkpoint of the preceding stage to start from, or None to start from the network as it is.
        resume: continue from the resume file where it exists. Otherwise the stage starts anew.
        to_save: further things by name that have ``state_dict()`` and ``load_state_dict()``, as in ignite's
            ``Checkpoint``; their states must be tensors and plain Python values.
        weights: what goes into ``path`` in place of the network, such as the average of its weights (EMA).
        describe: called with ``path`` after the weights have been written, to tell what they were trained on.

    Raises:
        FileNotFoundError, ValueError: by the run, when ``start_from`` is missing or belongs to another network, when
            the state to resume belongs to another network or to more epochs than asked for, or when something to save
            could not be read back; the latter after the first epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str | PathLike[str],
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any | None = None,
        evaluator: Evaluator | None = None,
        start_from: str | PathLike[str] | None = None,
        resume: bool = False,
        to_save: Mapping[str, Any] | None = None,
        weights: nn.Module | None = None,
        describe: Callable[[Path], None] | None = None,
    ) -> None:
        if taken := sorted(_OWN & (to_save or {}).keys()):
            raise ValueError(f"to_save must not use the names {sorted(_OWN)}, got {taken}.")
        self.network = network
        self.path = Path(path)
        self.state_path = self.path.with_name(f"{self.path.stem}{_RESUME_SUFFIX}")
        self.schedule = Schedule(optimizer, lr_scheduler)
        self.evaluator = evaluator
        self.start_from = start_from
        self.resume = resume
        self.to_save = dict(to_save or {})
        self.weights = network if weights is None else weights
        self.describe = describe
        self._read_back = False

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
        # registered here, not in attach(), to come after all handlers that validate, step the schedule or end the run
        if not engine.has_event_handler(self._save, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    @idist.one_rank_only(with_barrier=True)
    def _forget(self) -> None:
        self.state_path.unlink(missing_ok=True)  # of an earlier run, which nobody must resume from now on

    @idist.one_rank_only(with_barrier=True)  # the next stage reads on all ranks what the first has written
    def _save(self, engine: Trainer) -> None:
        if self.evaluator is None or self._just_improved(engine):
            save_weights(self.weights, self.path)
            if self.describe is not None:
                self.describe(self.path)
        stateful = self._stateful(engine)
        state = {name: item.state_dict() for name, item in stateful.items()}
        state["trainer"] = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "finished": any(stopper.counter >= stopper.patience for stopper in _early_stoppings(stateful)),
        }
        if self.evaluator is not None:
            state["best"] = _best(self.evaluator)
        with written_whole(self.state_path) as temporary:
            with temporary.open("wb") as file:
                torch.save(state, file)
            if not self._read_back:  # not after a kill fifty epochs later
                _check_readable(state, temporary)
                self._read_back = True

    def _stateful(self, engine: Trainer) -> dict[str, Any]:
        # "model": whoever loads the file as weights, as MONAI Label lets its users, gets this network whole
        stateful = {"model": self.network, "schedule": self.schedule}
        loss = getattr(engine, "criterion", engine.loss_function)
        if isinstance(loss, nn.Module) and loss.state_dict():
            stateful["loss"] = loss
        if engine.scaler is not None:
            stateful["scaler"] = engine.scaler
        for name, item in _attached(engine, self.evaluator).items():
            if item is not self.network:
                stateful[name] = item
        return stateful | self.to_save

    def _just_improved(self, engine: Trainer) -> bool:
        # ValidationHandler runs the evaluator with the trainer's epoch as its own; before the first validation it is -1
        return self.evaluator.state.best_metric_epoch in (-1, engine.state.epoch)  # type: ignore[union-attr]

    def _restore(self, engine: Trainer) -> None:
        state = read_checkpoint(self.state_path, engine.state.device)
        finished = state["trainer"].get("finished", False)
        epoch = state["trainer"]["epoch"]
        if epoch > engine.state.max_epochs and not finished:
            raise ValueError(
                f"'{self.state_path}' is a stage of {epoch} epochs and cannot be resumed with max_epochs "
                f"{engine.state.max_epochs}: ask for more epochs, or start anew without resume."
            )
        stateful = self._stateful(engine)
        named = ""
        try:
            for named, item in stateful.items():
                item.load_state_dict(state[named])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = f"there is no '{named}' in it" if isinstance(error, KeyError) else str(error).split("\n")[0]
            raise ValueError(
                f"'{self.state_path}' belongs to a run with other networks or settings ('{named}': {reason}): give "
                "those, another output_dir, or start anew without resume."
            ) from error
        engine.state.epoch, engine.state.iteration = epoch, state["trainer"]["iteration"]
        if self.evaluator is not None:
            for name, value in state["best"].items():
                setattr(self.evaluator.state, name, value)
        if finished:
            engine.terminate()
            logger.info("%s was ended by early stopping in epoch %d.", self.state_path.stem, epoch)
        else:
            logger.info("%s resumed after epoch %d of %d.", self.state_path.stem, epoch, engine.state.max_epochs)


def _attached(engine: Trainer, evaluator: Evaluator | None) -> dict[str, Any]:
    """Early stopping and averages of weights that handlers of the trainer and of its validators hold, by name."""
    owners = list(_handlers_of(engine))
    validators = [owner.validator for owner in owners if isinstance(owner, ValidationHandler)]
    for validator in dict.fromkeys([*validators, evaluator]):
        owners += [] if validator is None else _handlers_of(validator)
    found: dict[str, Any] = {}
    for owner in dict.fromkeys(owners):
        inner = owner._handler if isinstance(owner, EarlyStopHandler) else owner
        if isinstance(inner, EarlyStopping):
            found[f"early_stopping_{len(found)}"] = inner
        elif isinstance(inner, EMAHandler):
            found[f"ema_{len(found)}"] = inner.ema_model
    return found


def _handlers_of(engine: Engine) -> Iterator[Any]:
    """The objects whose methods, or which themselves, are handlers of an engine."""
    for handlers in engine._event_handlers.values():
        for handler, *_ in handlers:
            # ignite wraps the handlers of filtered events
            wrapped = getattr(handler, "_parent", None)
            function = handler if wrapped is None else wrapped()
            yield getattr(function, "__self__", function)


def _early_stoppings(stateful: Mapping[str, Any]) -> list[EarlyStopping]:
    return [item for item in stateful.values() if isinstance(item, EarlyStopping)]


def _check_readable(state: Mapping[str, Any], path: Path) -> None:
    try:
        read_checkpoint(path)
    except ValueError as error:
        for name, entry in state.items():
            with io.BytesIO() as file:
                torch.save(entry, file)
                file.seek(0)
                try:
                    torch.load(file, weights_only=True)
                except pickle.UnpicklingError:
                    raise ValueError(
                        f"The state of '{name}' holds objects that are neither tensors nor plain Python values, so "
                        "a stage that keeps it could not be resumed: leave it out, or let its state_dict() give such."
                    ) from error
        raise


def _best(evaluator: Evaluator) -> dict[str, Any]:
    # a plain float: checkpoints are read back with weights_only, which refuses the scalars of numpy
    return {
        "best_metric": float(evaluator.state.best_metric),
        "best_metric_epoch": evaluator.state.best_metric_epoch,
    }
