"""What the studies of segmentation share: arms, batches of labelled and unlabelled cases, training.

``fetal_head.py`` and ``hippocampus.py`` say what is compared; ``docs/segmentation.md`` is the protocol.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.losses import DiceCELoss
from monai.utils import set_determinism
from torch import Tensor, nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import DistillationLoss, SoftTargetLoss
from monai_fetalkd.teachers import LiveTeacher, Query, Targets, Teacher
from monai_fetalkd.unlabelled import NO_LABEL

TEACHER = "teacher"
BASELINE = "labels alone"

Augment = Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Cases:
    """Images and labels of one size: ``[N, 1, *spatial]``, and the row of the table of each."""

    images: Tensor
    labels: Tensor
    rows: list[dict[str, str]]

    def split(self, name: str) -> Cases:
        """The cases of a split."""
        chosen = [number for number, row in enumerate(self.rows) if row["split"] == name]
        return Cases(self.images[chosen], self.labels[chosen], [self.rows[number] for number in chosen])


Scores = Callable[[Tensor, Cases], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Arm:
    """One way to train a student.

    Args:
        loss: makes the loss; None is that on labels alone.
        unlabelled: whether half of each batch are cases without labels.
        all_labels: whether every training case is labelled, to see what labels would be worth.
        layers: layers of student and teacher that the loss compares.
        attention: loss of a first stage of a quarter of the steps, on ``attention_layers``.
        attention_layers: its layers.
    """

    loss: Callable[[], nn.Module] | None = None
    unlabelled: bool = True
    all_labels: bool = False
    layers: Sequence[str] = ()
    attention: Callable[[], nn.Module] | None = None
    attention_layers: Sequence[str] = ()


@dataclass(frozen=True)
class Task:
    """Data, networks, arms and scores of a study.

    Args:
        cases: those of all splits.
        teacher: makes a teacher.
        student: makes a student.
        augment: changes a batch at random.
        arms: arm by name.
        scores: scores of each case by name, from the logits; the first of them chooses the arm.
        test_scores: the same and those that take longer, for the test cases.
        batch_size: cases in a batch.
        teacher_steps: optimizer steps of the teacher.
        student_steps: those of a student, of both stages together.
        budgets: numbers of labelled cases.
        group: column of the table that says which cases are of one exam.
        lr: highest learning rate.
    """

    cases: Cases
    teacher: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    augment: Augment
    arms: Mapping[str, Arm]
    scores: Scores
    test_scores: Scores
    batch_size: int
    teacher_steps: int
    student_steps: int
    budgets: Sequence[int]
    group: str
    lr: float = 0.005


label_loss = partial(DiceCELoss, to_onehot_y=True, softmax=True)


def distillation(
    kd_weight: float = 1.0, soft_target_loss: nn.Module | None = None, **features: nn.Module
) -> DistillationLoss:
    """Labels, logits of the teacher (soft targets of temperature 2 by default) and features."""
    return DistillationLoss(
        kd_weight=kd_weight,
        label_loss=label_loss(),
        soft_target_loss=SoftTargetLoss(2.0) if soft_target_loss is None else soft_target_loss,
        feature_losses=features,
        feature_weights={name: {"rad": 1.0, "ifvd": 10.0}[name] for name in features},
    )


class StoredLogits(Teacher):
    """Logits that come with the batch: computed once for whole cases and transformed like their labels."""

    def targets(self, query: Query) -> Targets:
        """The entry ``teacher`` of the batch."""
        return Targets(query.batch["teacher"], {})

    def networks(self) -> list[nn.Module]:
        """None."""
        return []

    def check_layers(self, layers: Sequence[str]) -> None:
        """Only logits are stored."""
        if layers:
            raise ValueError("features are not stored")


class Batches:
    """Random batches, each of the same share of labelled and unlabelled cases."""

    def __init__(
        self,
        cases: dict[str, Tensor],
        parts: Sequence[Sequence[int]],
        size: int,
        steps: int,
        seed: int,
        augment: Augment,
    ) -> None:
        self.cases, self.parts, self.size, self.steps, self.augment = cases, parts, size // len(parts), steps, augment
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        streams = [self._stream(torch.tensor(part)) for part in self.parts]
        for _ in range(self.steps):
            chosen = torch.cat([torch.stack([next(stream) for _ in range(self.size)]) for stream in streams])
            yield self.augment({key: values[chosen] for key, values in self.cases.items()}, self.generator)

    def _stream(self, part: Tensor) -> Iterator[Tensor]:
        while True:
            yield from part[torch.randperm(len(part), generator=self.generator)]


def labelled_cases(total: int, count: int, seed: int) -> list[int]:
    """Which training cases are labelled: drawn anew for each seed, the same for all arms."""
    return np.random.default_rng(seed).permutation(total)[:count].tolist()


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, size: int = 10) -> Tensor:
    """Logits of whole cases."""
    network.eval()
    return torch.cat([network(part) for part in images.split(size)])


def train(task: Task, folder: Path, name: str, labels: int, seed: int, teacher_path: Path | None) -> None:
    """Train one network unless that was done, and score the validation cases."""
    result = folder / "val.json"
    if result.is_file():
        return
    start = time.process_time()
    set_determinism(seed)
    if teacher_path is None:
        network, steps = task.teacher(), task.teacher_steps
        _run(task, network, Arm(all_labels=True, unlabelled=False), steps, labels, seed, None)
    else:
        network, teacher = task.student(), task.teacher()
        teacher.load_state_dict(torch.load(teacher_path, weights_only=True))
        arm, steps = task.arms[name], task.student_steps
        if arm.attention is not None:
            first = Arm(arm.attention, layers=arm.attention_layers)
            _run(task, network, first, steps // 4, labels, seed, teacher, stage=AttentionTransferTrainer)
            steps -= steps // 4
        _run(task, network, arm, steps, labels, seed, teacher)
    set_determinism(None)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / "model.pt")
    val = task.cases.split("val")
    scores = {key: float(np.nanmean(values)) for key, values in task.scores(predict(network, val.images), val).items()}
    scores["cpu_seconds"] = round(time.process_time() - start)
    result.write_text(json.dumps(scores))
    print(folder, scores, flush=True)


def _run(
    task: Task,
    network: nn.Module,
    arm: Arm,
    steps: int,
    labels: int,
    seed: int,
    teacher: nn.Module | None,
    stage: type[DistillationTrainer] | type[AttentionTransferTrainer] = DistillationTrainer,
) -> None:
    cases = task.cases.split("train")
    total = len(cases.rows)
    labelled = list(range(total)) if arm.all_labels else labelled_cases(total, labels, seed)
    unlabelled = sorted(set(range(total)) - set(labelled))
    shown = {"image": cases.images, "label": cases.labels.to(torch.int16)}
    shown["label"][unlabelled] = NO_LABEL
    live = bool(arm.layers)
    if teacher is not None and arm.loss is not None and not live:
        shown["teacher"] = predict(teacher, cases.images)
    parts = [labelled, unlabelled] if arm.unlabelled and unlabelled else [labelled]
    loss = label_loss() if arm.loss is None else arm.loss()
    optimizer = torch.optim.AdamW([*network.parameters(), *loss.parameters()], lr=task.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.lr, total_steps=steps + 1)
    common: dict[str, Any] = {
        "device": "cpu",
        "max_epochs": 1,
        "train_data_loader": Batches(shown, parts, task.batch_size, steps, seed, task.augment),
        "network": network,
        "optimizer": optimizer,
        "loss_function": loss,
        "decollate": False,
        "train_handlers": [LrScheduleHandler(schedule, print_lr=False, epoch_level=False)],
    }
    if arm.loss is None or teacher is None:
        SupervisedTrainer(**common).run()
    else:
        asked = LiveTeacher(teacher) if live else StoredLogits()
        stage(teacher=asked, student_layers=list(arm.layers), **common).run()
