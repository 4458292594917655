"""What the studies of segmentation share: batches of labelled and unlabelled cases, arms, training, tables.

``fetal_head.py`` and ``hippocampus.py`` say what is compared; ``docs/segmentation.md`` is the protocol.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.losses import DiceCELoss
from monai.utils import set_determinism
from torch import Tensor, nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.evaluation.scores.resamples import group_resamples
from monai_fetalkd.losses import DistillationLoss, SoftTargetLoss
from monai_fetalkd.teachers import LiveTeacher, Query, Targets, Teacher
from monai_fetalkd.utils.markdown import markdown_table

IGNORED = 255  # label of every pixel of a case without label
TEACHER = "teacher"
BASELINE = "labels alone"

REPEATS = 2000  # of the bootstrap

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

    loss: Callable[[], DistillationLoss] | None = None
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


class LabelledCases(nn.Module):
    """A loss on labels that counts the labelled cases of a batch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The mean over the labelled cases; zero without one."""
        labelled = (label != IGNORED).flatten(1).all(dim=1)
        return self.loss(logits[labelled], label[labelled]) if labelled.any() else logits.sum() * 0.0


def distillation(
    kd_weight: float = 1.0, soft_target_loss: nn.Module | None = None, **features: nn.Module
) -> DistillationLoss:
    """Labels, logits of the teacher (soft targets of temperature 2 by default) and features."""
    return DistillationLoss(
        kd_weight=kd_weight,
        label_loss=LabelledCases(),
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
    start = time.monotonic()
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
    scores["seconds"] = round(time.monotonic() - start)
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
    shown = {"image": cases.images, "label": cases.labels.clone()}
    shown["label"][unlabelled] = IGNORED
    live = bool(arm.layers)
    if teacher is not None and arm.loss is not None and not live:
        shown["teacher"] = predict(teacher, cases.images)
    parts = [labelled, unlabelled] if arm.unlabelled and unlabelled else [labelled]
    loss = LabelledCases() if arm.loss is None else arm.loss()
    optimizer = torch.optim.AdamW([*network.parameters(), *loss.parameters()], lr=task.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.lr, total_steps=steps + 1)
    common = {
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


def trained(task: Task, output: Path, seeds: Sequence[int]) -> Iterator[tuple[int, int | None, str, Path]]:
    """Seed, number of labels (None for the teacher), arm and folder of each network of the study."""
    for seed in seeds:
        yield seed, None, TEACHER, output / f"seed_{seed}" / TEACHER
        for labels in task.budgets:
            for name in task.arms:
                folder = output / f"seed_{seed}" / f"labels_{labels}" / name.replace(" ", "_").replace(",", "")
                yield seed, labels, name, folder


def validation_table(task: Task, output: Path, seeds: Sequence[int]) -> str:
    """Scores of the validation cases: mean over the seeds that are done, then each seed."""
    found: dict[tuple[int | None, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _, labels, name, folder in trained(task, output, seeds):
        if (path := folder / "val.json").is_file():
            for key, value in json.loads(path.read_text()).items():
                found[labels, name][key].append(value)
    metrics = list(next(iter(found.values())))
    rows = [["labels", "arm", *metrics]]
    for (labels, name), scores in found.items():
        texts = (
            f"{np.mean(scores[key]):.3f} ({', '.join(f'{value:.3f}' for value in scores[key])})" for key in metrics
        )
        rows.append(["" if labels is None else str(labels), name, *texts])
    return markdown_table(rows)


def score_test(task: Task, output: Path, seeds: Sequence[int]) -> None:
    """Score the test cases with all networks, once."""
    path = output / "test.json"
    if path.is_file():
        raise SystemExit(f"The test cases have been scored: '{path}' is there.")
    networks = list(trained(task, output, seeds))
    if missing := [str(folder) for *_, folder in networks if not (folder / "val.json").is_file()]:
        raise SystemExit(f"Train all networks first: {len(missing)} are missing, such as '{missing[0]}'.")
    cases = task.cases.split("test")
    found = []
    for seed, labels, name, folder in networks:
        network = task.teacher() if labels is None else task.student()
        network.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
        scores = {
            key: values.tolist() for key, values in task.test_scores(predict(network, cases.images), cases).items()
        }
        found.append({"seed": seed, "labels": labels, "arm": name, "scores": scores})
        print(f"seed {seed}, {labels} labels, {name}", flush=True)
    path.write_text(json.dumps({"groups": [row[task.group] for row in cases.rows], "networks": found}))


def test_table(output: Path) -> str:
    """Test scores with 95 % intervals of resampled seeds and groups, and paired differences to labels alone."""
    read = json.loads((output / "test.json").read_text())
    seeds = sorted({network["seed"] for network in read["networks"]})
    metrics = list(read["networks"][0]["scores"])
    values: dict[tuple[int | None, str], np.ndarray] = {}  # [metrics, seeds, cases]
    for network in read["networks"]:
        key = network["labels"], network["arm"]
        shape = len(metrics), len(seeds), len(read["groups"])
        values.setdefault(key, np.full(shape, np.nan))[:, seeds.index(network["seed"])] = list(
            network["scores"].values()
        )
    resampled = dict(zip(values, _resampled(np.stack(list(values.values())), read["groups"]), strict=True))
    rows = [["labels", "arm", *metrics, f"{metrics[0]}, less labels alone", f"{metrics[0]}, of the teacher's"]]
    for (labels, name), means in resampled.items():
        row = ["" if labels is None else str(labels), name, *(_interval(mean) for mean in means.T)]
        if labels is None:
            rows.append([*row, "", ""])
        else:
            less = means[:, 0] - resampled[labels, BASELINE][:, 0]
            rows.append([*row, _interval(less, "+"), _interval(means[:, 0] / resampled[None, TEACHER][:, 0])])
    return markdown_table(rows)


def _resampled(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Means of ``[arms, metrics, seeds, cases]`` as they are and of each resample: ``[arms, 1 + repeats, metrics]``."""
    generator = np.random.default_rng(0)
    draws = chain([np.arange(len(groups))], group_resamples(groups, REPEATS))
    means = []
    for number, drawn in enumerate(draws):
        count = values.shape[2]
        chosen = generator.integers(count, size=count) if number else np.arange(count)
        means.append(np.nanmean(values[:, :, chosen][..., drawn], axis=(2, 3)))
    return np.stack(means, axis=1)


def _interval(means: np.ndarray, sign: str = "") -> str:
    low, high = np.quantile(means[1:], (0.025, 0.975))
    return f"{means[0]:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def command(make_task: Callable[[Path], Task], description: str | None) -> None:
    """Train what is missing, print the validation scores, or score the test cases."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("action", choices=["train", "validation", "test"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", help="train these only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = make_task(arguments.data)
    if arguments.action == "train":
        for seed, labels, name, folder in trained(task, arguments.output, arguments.seeds):
            if labels is None or arguments.arms is None or name in arguments.arms:
                teacher = None if labels is None else arguments.output / f"seed_{seed}" / TEACHER / "model.pt"
                train(task, folder, name, labels or 0, seed, teacher)
    elif arguments.action == "validation":
        print(validation_table(task, arguments.output, arguments.seeds))
    else:
        score_test(task, arguments.output, arguments.seeds)
        print(test_table(arguments.output))
