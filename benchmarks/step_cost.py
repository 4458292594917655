"""What a step of distillation costs beside a step without any teacher, and beside a loop with a live teacher.

    python benchmarks/step_cost.py

A stage-2 step (cross entropy, soft targets, attention of four layers) of ``DistillationTrainer``, with a live teacher
and with stored targets, in float32 and in bfloat16 with channels last; against a step of MONAI's ``SupervisedTrainer``
with cross entropy alone, and against the distillation step written by hand in PyTorch in float32. All start from equal
weights and see one batch; they take turns, in random order, in one process on one thread, and what counts is the time
of that thread, which other programs on the machine hardly touch. The losses are printed: nobody is fast by leaving
something out.

Not in the step: the loader, which is the same with and without a teacher, and the first pass over the views, in which
the teacher computes the targets.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import monai
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.transforms import Compose
from step_overhead import AT_WEIGHT, CE_WEIGHT, KD_WEIGHT, LAYERS, TEMPERATURE, by_hand
from torch import Tensor, nn

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.inferers import PrecisionInferer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.networks import student_resnet, teacher_resnet
from monai_fetalkd.targets import FixedViews, TeacherTargets

BATCH, WARM_UP, LEARNING_RATE = 16, 2, 0.01
NO_TEACHER, BY_HAND = "no teacher", "live teacher by hand"
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16, channels last": {"dtype": "bfloat16", "channels_last": True},
}


@dataclass(frozen=True)
class Case:
    """A teacher and a student, and the side of the square frames."""

    teacher_depth: int
    student: Callable[[], nn.Module]
    student_name: str
    side: int
    rounds: int

    def __str__(self) -> str:
        return f"ResNet-{self.teacher_depth} to {self.student_name}, 1 x {self.side} x {self.side}, batch {BATCH}"


CASES = [
    Case(34, lambda: student_resnet(width=16), "student_resnet(width=16)", 128, rounds=30),
    Case(50, lambda: teacher_resnet(depth=18), "ResNet-18", 224, rounds=8),
]


class Material:
    """The batch and the weights with which all begin."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        frames = [{"image": torch.rand(1, case.side, case.side), "label": index % 6} for index in range(BATCH)]
        self.loader = DataLoader(FixedViews(Dataset(frames, Compose([])), views=1), batch_size=BATCH)
        self._student = case.student()
        self._teacher = teacher_resnet(case.teacher_depth).eval().requires_grad_(False)

    def student(self) -> nn.Module:
        """A student of one's own."""
        return copy.deepcopy(self._student)

    def teacher(self) -> nn.Module:
        """A teacher of one's own."""
        return copy.deepcopy(self._teacher)


@dataclass
class Contestant:
    """Someone who takes steps, one at each call, which gives the loss; ``seconds`` are those of the steps alone."""

    name: str
    precision: str
    step: Callable[[], float]
    seconds: list[float]
    losses: list[float] = field(default_factory=list)

    @classmethod
    def by_pytorch(cls, name: str, step: Callable[[], Tensor]) -> Contestant:
        """A step in float32 that is a function."""
        seconds: list[float] = []

        def timed() -> float:
            start = time.thread_time()
            loss = step()
            seconds.append(time.thread_time() - start)
            return loss.item()

        return cls(name, "float32", timed, seconds)

    @classmethod
    def by_trainer(cls, name: str, precision: str, trainer: SupervisedTrainer) -> Contestant:
        """A step of a trainer, whose run stops after each and goes on at the next call."""
        seconds: list[float] = []
        started = 0.0

        @trainer.on(Events.ITERATION_STARTED)
        def start() -> None:
            nonlocal started
            started = time.thread_time()

        @trainer.on(Events.ITERATION_COMPLETED)
        def stop() -> None:
            seconds.append(time.thread_time() - started)
            if trainer.state.iteration < trainer.state.epoch_length:
                trainer.interrupt()

        def step() -> float:
            trainer.run()
            return trainer.state.output["loss"].item()

        return cls(name, precision, step, seconds)


def contestants(material: Material, rounds: int, cache_dir: str) -> list[Contestant]:
    """By hand; then without a teacher, with a live one and with stored targets, in each precision."""

    def settings(precision: str) -> dict[str, Any]:
        student = material.student()
        return {
            "device": "cpu",
            "max_epochs": 1,
            "epoch_length": WARM_UP + rounds,  # as an epoch's start reads all weights of the teacher to see a change
            "train_data_loader": material.loader,
            "network": student,
            "optimizer": torch.optim.SGD(student.parameters(), lr=LEARNING_RATE),
            "inferer": PrecisionInferer(**PRECISIONS[precision]),
            "decollate": False,
        }

    def distillation(precision: str, targets: TeacherTargets | None) -> DistillationTrainer:
        return DistillationTrainer(
            teacher=material.teacher(),
            student_layers=LAYERS,
            loss_function=DistillationLoss(
                CE_WEIGHT, KD_WEIGHT, TEMPERATURE, {"at": AttentionTransferLoss()}, {"at": AT_WEIGHT}
            ),
            targets=targets,
            **settings(precision),
        )

    batch = next(iter(material.loader))
    entered = [Contestant.by_pytorch(BY_HAND, by_hand(material.student(), material.teacher(), batch))]
    for precision in PRECISIONS:
        plain = SupervisedTrainer(loss_function=nn.CrossEntropyLoss(), **settings(precision))
        entered += [
            Contestant.by_trainer(NO_TEACHER, precision, plain),
            Contestant.by_trainer("live teacher", precision, distillation(precision, None)),
            Contestant.by_trainer("stored targets", precision, distillation(precision, TeacherTargets(cache_dir))),
        ]
    return entered


def measure(entered: list[Contestant], rounds: int, against: str) -> None:
    """Let all take turns, and print the table: against the step without a teacher, and against one of them."""
    order = random.Random(0)  # who comes after a large network finds the caches cold
    for _ in range(WARM_UP + rounds):
        for one in order.sample(entered, k=len(entered)):
            one.losses.append(one.step())
    counted = {(one.name, one.precision): one.seconds[WARM_UP:] for one in entered}
    print(f"| step | precision | ms | times as long as {NO_TEACHER} | times as fast as {against} | first, last loss |")
    print("| --- | --- | --- | --- | --- | --- |")
    for one in entered:
        seconds = counted[one.name, one.precision]
        print(
            f"| {one.name} | {one.precision} | {1000 * statistics.median(seconds):.1f} "
            f"| {ratio(seconds, counted[NO_TEACHER, one.precision])} | {ratio(counted[against, 'float32'], seconds)} "
            f"| {one.losses[0]:.4f}, {one.losses[-1]:.4f} |"
        )


def ratio(seconds: list[float], others: list[float]) -> str:
    """Median and quartiles of the ratios of the rounds."""
    low, middle, high = statistics.quantiles([one / other for one, other in zip(seconds, others, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def parsed_rounds(description: str | None) -> int | None:
    """The one argument: how many steps of each count."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--rounds", type=int, help="steps of each that count; without it, as many as the case needs")
    return parser.parse_args().rounds


def heading(case: Case, rounds: int) -> str:
    """What was measured, and with what."""
    return (
        f"\n{case}: {rounds} steps of each after {WARM_UP} to warm up; torch {torch.__version__}, monai "
        f"{monai.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread of {os.cpu_count()} cores\n"
    )


def main() -> None:
    """Measure each case."""
    asked = parsed_rounds(__doc__)
    torch.set_num_threads(1)
    for case in CASES:
        rounds = asked or case.rounds
        print(heading(case, rounds))
        with tempfile.TemporaryDirectory() as cache_dir:
            measure(contestants(Material(case), rounds, cache_dir), rounds, against=BY_HAND)


if __name__ == "__main__":
    main()
