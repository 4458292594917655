"""The learning rate of a stage that is resumed, perhaps with other settings or another number of epochs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

__all__ = ["Schedule"]


class Schedule:
    """Optimizer and schedule of a stage, with what they were when the stage was set up.

    A state dict of torch holds settings beside state: the length of a ``OneCycleLR``, the period of a cosine, the
    weight decay. Loaded as it is, it would silently override what the new run was asked for. So the settings at the
    start are kept in the checkpoint too. Where they are those of now, all is loaded as it was saved. Where they differ,
    the settings of now hold: the optimizer gets its moments back, and the schedule is stepped anew to where it was.

    Args:
        optimizer: the optimizer, as it is at the start of the stage.
        lr_scheduler: its schedule, or None.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, lr_scheduler: Any | None) -> None:
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._start = copy.deepcopy(self._settings())

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": None if self.lr_scheduler is None else self.lr_scheduler.state_dict(),
            "start": self._start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: as :meth:`state_dict` gives it.

        Raises:
            ValueError: when the parameters are others, or the schedule of now is shorter than what has been trained.
        """
        scheduler, saved = self.lr_scheduler, state["lr_scheduler"]
        if _equal(state["start"], self._start) or (scheduler is not None and _follows_a_metric(scheduler, saved)):
            self.optimizer.load_state_dict(dict(state["optimizer"]))
            if scheduler is not None:
                scheduler.load_state_dict(saved)
            return
        groups = state["optimizer"]["param_groups"]
        if len(groups) != len(self._start["groups"]):
            raise ValueError(
                f"there are {len(self._start['groups'])} groups of parameters, and {len(groups)} were saved"
            )
        settings = copy.deepcopy(self._start)
        pairs = zip(settings["groups"], groups, strict=True)
        asked = [{**own, "params": group["params"]} for own, group in pairs]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": asked})
        if scheduler is not None:
            scheduler.load_state_dict(settings["lr_scheduler"])
            self._step_again(scheduler, _steps(saved) - _steps(settings["lr_scheduler"]))

    def _step_again(self, scheduler: Any, steps: int) -> None:
        with warnings.catch_warnings():
            # torch warns of steps of the schedule without steps of the optimizer between them
            warnings.simplefilter("ignore")
            try:
                for _ in range(steps):
                    scheduler.step()
            except ValueError as error:
                raise ValueError(
                    f"the schedule {type(scheduler).__name__} is shorter than the {steps} steps that have been trained"
                ) from error

    def _settings(self) -> dict[str, Any]:
        groups = [
            {name: value for name, value in group.items() if name != "params"} for group in self.optimizer.param_groups
        ]
        return {
            "groups": groups,
            "lr_scheduler": None if self.lr_scheduler is None else self.lr_scheduler.state_dict(),
        }


def _follows_a_metric(scheduler: Any, saved: Any) -> bool:
    """Whether the rate depends on metrics that nobody has kept, so that it cannot be stepped again."""
    return isinstance(scheduler, ReduceLROnPlateau) and isinstance(saved, Mapping) and "num_bad_epochs" in saved


def _steps(state: Any) -> int:
    """How often a schedule has been stepped, by its state."""
    if not isinstance(state, Mapping):
        return 0
    if "last_epoch" in state:
        return int(state["last_epoch"])
    inner = state.get("_schedulers")  # a chain of schedules counts in each of them
    return _steps(inner[0]) if inner else 0


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return bool(torch.equal(torch.as_tensor(one).cpu(), torch.as_tensor(other).cpu()))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
