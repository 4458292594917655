"""A tiny stage with an adapter in its loss, to be killed and resumed."""

from __future__ import annotations

import contextlib

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from torch import nn

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.handlers import EpochSeeder, StageCheckpoint
from monai_fetalkd.losses import DistillationLoss, FeatureLoss, ProjectedLoss

FRAMES = 8


class Killed(BaseException):
    """Stands for a SIGKILL."""


def network(width, seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)
    )


def rows():
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, 8, 8, generator=generator), "label": i % 3, "id": i} for i in range(FRAMES)]


class Stage:
    """A stage in a folder, of one process: what it has that could be lost, and which frames it saw in each epoch."""

    def __init__(
        self,
        folder,
        epochs=4,
        resume=False,
        kill=None,
        process_seed=0,
        dataset=None,
        loader=None,
        schedule=None,
        prepare=None,
        kind=DistillationTrainer,
        **arguments,
    ):
        self.student = network(4, 1)
        torch.manual_seed(process_seed)  # what a process makes anew is not what was lost with the last one
        self.hint = FeatureLoss(ProjectedLoss(nn.MSELoss(), 4, 8))
        loss = self.hint
        if kind is DistillationTrainer:
            loss = DistillationLoss(feature_losses={"hint": self.hint})
        parameters = [*self.student.parameters(), *self.hint.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        dataset = Dataset(rows()) if dataset is None else dataset
        loader = DataLoader(dataset, batch_size=2, shuffle=True) if loader is None else loader(dataset)
        self.trainer = kind(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=loader,
            network=self.student,
            teacher=network(8, 2),
            optimizer=optimizer,
            loss_function=loss,
            student_layers=["0"],
            decollate=False,
            **arguments,
        )
        self.schedule = None if schedule is None else schedule(optimizer, epochs * 4)
        self.optimizer = optimizer
        EpochSeeder(dataset, 3).attach(self.trainer)
        further = {} if prepare is None else prepare(self)
        StageCheckpoint(self.student, folder / "s.pt", optimizer, self.schedule, resume=resume, to_save=further).attach(
            self.trainer
        )
        self.seen = {}
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda e: self.seen.setdefault(e.state.epoch, []).append(e.state.batch["id"].tolist()),
        )
        if self.schedule is not None:
            self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.schedule.step())
        if kill is not None:

            @self.trainer.on(Events.EPOCH_STARTED)
            def end():
                if self.trainer.state.epoch == kill:
                    raise Killed

    def run(self):
        with contextlib.suppress(Killed):
            self.trainer.run()
        return self


def interrupted(tmp_path, **arguments):
    """One stage in one go, and one of which a process is killed at the start of its third epoch."""
    whole = Stage(tmp_path / "whole", **arguments).run()
    Stage(tmp_path / "killed", kill=3, **arguments).run()
    return whole, Stage(tmp_path / "killed", resume=True, process_seed=9, **arguments).run()


def assert_same(one, other):
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
