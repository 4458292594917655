"""Do students of this package reach the accuracy of those of torchdistill 1.1.5? Ways to train by seeds, in one table.

    torchdistill-environment/bin/python benchmarks/torchdistill_accuracy.py

The environment is that of torchdistill_step.py. For every seed a teacher is trained on the phantom, and then students
from the same weights, on the same batches of the same fixed views, with the same loss, optimizer and schedule: by
torchdistill, which asks the teacher live in float32, and by ``DistillationTrainer`` with stored targets. What another
order of the batches does to torchdistill's own student shows how much of a difference is noise.

No checkpoint is chosen; the figures are of the test frames, after the last epoch, in float32. Seconds are those of the
one thread in all steps of a training, with the teacher's part in them and without the loader's. The checksums of all
batches are compared.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import monai
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose, EnsureTyped, ScaleIntensityRanged
from step_cost import BATCH, PRECISIONS
from step_overhead import AT_WEIGHT, CE_WEIGHT, KD_WEIGHT, LAYERS, TEMPERATURE
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset, RandomSampler
from torchdistill_step import NAME, distillation_box

from monai_fetalkd.bundle.workflow import config_item, native_precision
from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.inferers import PrecisionInferer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.networks import student_resnet, teacher_resnet
from monai_fetalkd.targets import FixedViews, TeacherTargets
from monai_fetalkd.ultrasound.data import PLANE_NAMES, frame_dataset, load_datalist, make_phantom
from monai_fetalkd.ultrasound.transforms import LoadFramed

TRAIN_CONFIG = Path(__file__).parents[1] / "bundle" / "configs" / "train.json"
SIDE, TRAIN_FRAMES, TEST_FRAMES = 64, 720, 900
TEACHER_DEPTH, STUDENT_WIDTH = 34, 16
TEACHER_EPOCHS, EPOCHS, VIEWS = 12, 12, 4
STEPS = TRAIN_FRAMES // BATCH  # of an epoch
OPTIMIZER: dict[str, Any] = {"lr": 0.003, "weight_decay": 0.05}
NATIVE = "bfloat16, channels last"
OTHER_ORDER = f"{NAME}, other order of batches"


@dataclass
class Task:
    """What all ways have in common: views, test frames, and the weights of a trained teacher and of a student."""

    views: FixedViews
    test: Dataset
    teacher: nn.Module
    student: nn.Module
    seed: int


@dataclass
class Training:
    """A student, and each of its steps: seconds of this thread, and the checksum of the batch."""

    student: nn.Module
    seconds: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    _started: float = 0.0

    def start(self, images: Tensor) -> None:
        """A step begins."""
        self.batches.append(zlib.crc32(images.numpy().tobytes()))
        self._started = time.thread_time()

    def stop(self) -> None:
        """It has ended."""
        self.seconds.append(time.thread_time() - self._started)


@dataclass(frozen=True)
class Result:
    """Test accuracy, and seconds of all steps and of those for which all targets have been stored."""

    accuracy: float
    seconds: float
    later: float


class Pairs(Dataset):
    """Views as torchdistill takes them."""

    def __init__(self, views: FixedViews) -> None:
        self.views = views

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item = self.views[index]
        return item["image"], item["label"]


def prepared(folder: Path, seed: int) -> Task:
    """The frames, and a teacher that MONAI's trainer has trained on them."""
    torch.manual_seed(seed)
    datalist = load_datalist(make_phantom(folder, TRAIN_FRAMES, len(PLANE_NAMES), TEST_FRAMES, SIDE), PLANE_NAMES)
    to_tensor = EnsureTyped("image", track_meta=False)
    still = [LoadFramed("image"), ScaleIntensityRanged("image", 0, 255, 0, 1), to_tensor]
    moving = config_item(TRAIN_CONFIG, "train#random_transforms", image_size=[SIDE, SIDE])
    frames = frame_dataset(datalist.section("training"), Compose([*still, *moving, to_tensor]), progress=False)
    views = FixedViews(frames, VIEWS, seed)
    teacher, student = teacher_resnet(TEACHER_DEPTH), student_resnet(STUDENT_WIDTH)
    optimizer = AdamW(teacher.parameters(), **OPTIMIZER)
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=TEACHER_EPOCHS,
        train_data_loader=DataLoader(frames, batch_size=BATCH, shuffle=True),
        network=teacher,
        optimizer=optimizer,
        loss_function=nn.CrossEntropyLoss(),
        inferer=PrecisionInferer(native_precision("cpu"), channels_last=True),
        train_handlers=[one_cycle(optimizer, TEACHER_EPOCHS)],
        decollate=False,
    )
    trainer.run()
    # in the layout of a network that has just been made, as whoever loads a checkpoint has it
    teacher.to(memory_format=torch.contiguous_format)
    test = frame_dataset(datalist.section("testing"), Compose(still), progress=False)
    return Task(views, test, teacher, student, seed)


def by_torchdistill(task: Task, training: Training, order: int) -> Iterator[None]:
    """Train with torchdistill, as its example scripts do, an epoch at a time."""
    box = distillation_box(
        copy.deepcopy(task.teacher),
        training.student,
        Pairs(task.views),
        SIDE,
        {"class_or_func": RandomSampler, "kwargs": {"generator": torch.Generator().manual_seed(order)}},
        num_epochs=EPOCHS,
        optimizer={"key": "AdamW", "kwargs": dict(OPTIMIZER)},
        scheduler={"key": "OneCycleLR", "kwargs": schedule(EPOCHS), "scheduling_step": 1},
    )
    for epoch in range(EPOCHS):
        task.views.set_epoch(epoch)
        box.pre_epoch_process(epoch=epoch)
        for images, labels, supplement in box.train_data_loader:
            training.start(images)
            loss = box.forward_process(images, labels, supplement)
            box.post_forward_process(loss)
            training.stop()
        box.post_epoch_process()
        yield


def by_trainer(task: Task, training: Training, precision: str) -> Iterator[None]:
    """Train with this package and stored targets, an epoch at a time."""
    optimizer = AdamW(training.student.parameters(), **OPTIMIZER)
    sampler = RandomSampler(task.views, generator=torch.Generator().manual_seed(task.seed))
    with tempfile.TemporaryDirectory() as cache_dir:
        trainer = DistillationTrainer(
            device="cpu",
            max_epochs=EPOCHS,
            train_data_loader=DataLoader(task.views, batch_size=BATCH, sampler=sampler),
            network=training.student,
            teacher=copy.deepcopy(task.teacher),
            student_layers=LAYERS,
            optimizer=optimizer,
            loss_function=DistillationLoss(
                CE_WEIGHT, KD_WEIGHT, TEMPERATURE, {"at": AttentionTransferLoss()}, {"at": AT_WEIGHT}
            ),
            targets=TeacherTargets(cache_dir),
            inferer=PrecisionInferer(**PRECISIONS[precision]),
            train_handlers=[one_cycle(optimizer, EPOCHS)],
            decollate=False,
        )
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: training.start(trainer.state.batch["image"]))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, training.stop)
        trainer.add_event_handler(Events.EPOCH_COMPLETED(lambda _, epoch: epoch < EPOCHS), trainer.interrupt)
        for _ in range(EPOCHS):
            trainer.run()  # goes on where it was interrupted
            yield


def one_cycle(optimizer: AdamW, epochs: int) -> LrScheduleHandler:
    """The schedule as a handler of MONAI's trainers."""
    return LrScheduleHandler(OneCycleLR(optimizer, **schedule(epochs)), print_lr=False, epoch_level=False)


def schedule(epochs: int) -> dict[str, Any]:
    """Arguments of ``OneCycleLR``: the learning rate rises and falls once."""
    return {"max_lr": OPTIMIZER["lr"], "total_steps": epochs * STEPS}


@torch.inference_mode()
def accuracy(network: nn.Module, frames: Dataset) -> float:
    """Part of the frames that a network names rightly."""
    network.eval()
    loader = DataLoader(frames, batch_size=BATCH)
    return statistics.fmean(
        right for batch in loader for right in (network(batch["image"]).argmax(1) == batch["label"]).tolist()
    )


def ways() -> dict[str, Callable[[Task, Training], Iterator[None]]]:
    """Ways to train by name and precision, as cells of the table; torchdistill's comes first."""
    entered: dict[str, Callable[[Task, Training], Iterator[None]]] = {
        f"{NAME} | float32": lambda task, training: by_torchdistill(task, training, order=task.seed),
        f"{OTHER_ORDER} | float32": lambda task, training: by_torchdistill(task, training, order=task.seed + 1000),
        "stored targets | float32": lambda task, training: by_trainer(task, training, "float32"),
    }
    if native_precision("cpu") == "bfloat16":
        entered[f"stored targets | {NATIVE}"] = lambda task, training: by_trainer(task, training, NATIVE)
    return entered


def compare(task: Task) -> dict[str, Result]:
    """Train in each way; they take turns, an epoch each."""
    entered = ways()
    trainings = {way: Training(copy.deepcopy(task.student)) for way in entered}
    for _ in zip(*(train(task, trainings[way]) for way, train in entered.items()), strict=True):
        pass
    batches = [training.batches for way, training in trainings.items() if not way.startswith(OTHER_ORDER)]
    if any(own != batches[0] for own in batches):
        raise RuntimeError("The batches were not the same in all ways.")
    return {
        way: Result(
            accuracy(training.student, task.test), sum(training.seconds), sum(training.seconds[VIEWS * STEPS :])
        )
        for way, training in trainings.items()
    }


def print_table(by_seed: list[dict[str, Result]]) -> None:
    """Accuracies, differences to torchdistill, and times, which are compared seed by seed."""
    print(
        "\n| student | precision | test accuracy, mean | by seed | more than torchdistill, mean | by seed "
        f"| seconds of the steps | times as fast | from epoch {VIEWS + 1} on |"
    )
    print("| --- " * 9 + "|")
    first = next(iter(by_seed[0]))
    for way in by_seed[0]:
        pairs = [(results[way], results[first]) for results in by_seed]
        print(
            f"| {way} | {cells([own.accuracy for own, _ in pairs], '.3f')} "
            f"| {cells([own.accuracy - other.accuracy for own, other in pairs], '+.3f')} "
            f"| {statistics.median(own.seconds for own, _ in pairs):.1f} "
            f"| {statistics.median(other.seconds / own.seconds for own, other in pairs):.2f} "
            f"| {statistics.median(other.later / own.later for own, other in pairs):.2f} |"
        )


def cells(values: list[float], form: str) -> str:
    """The mean, and all values."""
    return f"{statistics.mean(values):{form}} | {', '.join(f'{value:{form}}' for value in values)}"


def main() -> None:
    """Train all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    teachers, by_seed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            task = prepared(Path(folder) / "phantom", seed)
            teachers.append(accuracy(task.teacher, task.test))
            by_seed.append(compare(task))
            print(f"seed {seed}:", {way: round(result.accuracy, 3) for way, result in by_seed[-1].items()}, flush=True)
    print_table(by_seed)
    print(
        f"\nteacher teacher_resnet({TEACHER_DEPTH}), student student_resnet({STUDENT_WIDTH}), {TRAIN_FRAMES} frames of "
        f"{SIDE} x {SIDE}, batch {BATCH}, {EPOCHS} epochs of {VIEWS} views, {TEST_FRAMES} test frames; test accuracy "
        f"of the teachers {', '.join(f'{value:.3f}' for value in teachers)}; torch {torch.__version__}, monai "
        f"{monai.__version__}, seeds {' '.join(map(str, seeds))}, one thread of {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
