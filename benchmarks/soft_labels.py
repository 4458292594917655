"""What a stage-2 step on patches of volumes costs with stored soft labels, a live teacher, and no teacher.

    python benchmarks/soft_labels.py

A step of ``DistillationTrainer`` (DiceCE and soft targets) of a slim 3-D U-Net on patches of 48 x 64 x 48: from soft
labels of whole volumes (``SoftLabelTeacher``), and under a live teacher of 30 times its arithmetic, which torch counts;
against a step of MONAI's ``SupervisedTrainer`` with DiceCE alone. All start from equal weights; they take turns, in
random order, in one process on one thread, and what counts is the time of that thread, which other programs on the
machine hardly touch.

The loader is timed apart from the step: reading and cropping the soft label comes on top of image and label, in workers
where there are any. The one pass of the teacher over the volumes, before the first step, is told in seconds.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from typing import Any

import monai
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader, create_test_image_3d
from monai.engines import SupervisedTrainer
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandSpatialCropd
from step_cost import NO_TEACHER, WARM_UP, Contestant, measure, parsed_rounds, ratio
from torch.utils.flop_counter import FlopCounterMode

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.inferers import PrecisionInferer
from monai_fetalkd.losses import DistillationLoss
from monai_fetalkd.targets import SoftLabelTeacher, with_soft_labels

PATCH, VOLUME, CLASSES, BATCH, ROUNDS = (48, 64, 48), (80, 96, 80), 4, 2, 12
LIVE, STORED = "live teacher", "soft labels"
PRECISIONS: dict[str, dict[str, Any]] = {"float32": {"dtype": "float32"}, "bfloat16": {"dtype": "bfloat16"}}


def network(width: int) -> UNet:
    """A residual U-Net of three levels."""
    torch.manual_seed(0)
    return UNet(3, 1, CLASSES, (width, 2 * width, 4 * width), (2, 2), num_res_units=2)


def arithmetic(net: UNet) -> int:
    """Floating-point operations of a forward pass of one patch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 1, *PATCH))
    return counter.get_total_flops()


def dataset(with_soft_label: str | None) -> Any:
    """Volumes of spheres, in memory, with random crops and flips."""
    keys = ["image", "label", "soft_label"]
    rows = []
    for seed in range(BATCH):
        image, label = create_test_image_3d(
            *VOLUME, num_seg_classes=CLASSES - 1, random_state=np.random.RandomState(seed)
        )
        rows.append({"image": torch.tensor(image).float()[None], "label": torch.tensor(label).float()[None]})
    random = [
        RandSpatialCropd(keys, PATCH, random_size=False, allow_missing_keys=True),
        *(RandFlipd(keys, prob=0.5, spatial_axis=axis, allow_missing_keys=True) for axis in range(3)),
        EnsureTyped(keys, track_meta=False, allow_missing_keys=True),
    ]
    volumes = CacheDataset(rows, Compose(random), progress=False, copy_cache=False)
    return volumes if with_soft_label is None else with_soft_labels(volumes, with_soft_label)


def main() -> None:
    """Compare, in each precision."""
    rounds = parsed_rounds(__doc__) or ROUNDS
    torch.set_num_threads(1)
    student, teacher = network(16), network(94)
    operations = [arithmetic(net) for net in (student, teacher)]
    print(f"torch {torch.__version__}, monai {monai.__version__}, one thread; batches of {BATCH} patches of {PATCH}")
    print(
        f"student {operations[0] / 2e9:.2f} GMAC a patch; teacher {operations[1] / operations[0]:.1f} times as many\n"
    )
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    with tempfile.TemporaryDirectory() as folder:
        window = SlidingWindowInferer(PATCH, overlap=0.25, mode="gaussian")
        asked = SoftLabelTeacher(copy.deepcopy(teacher), folder, inferer=window)
        loaders = {
            name: DataLoader(dataset(folder if name == STORED else None), batch_size=BATCH)
            for name in (NO_TEACHER, LIVE, STORED)
        }
        start = time.thread_time()
        asked.start(loaders[STORED], torch.device("cpu"))
        print(f"the teacher's one pass over {BATCH} volumes of {VOLUME}: {time.thread_time() - start:.1f} s\n")
        entered, reading = [], {}
        for precision, settings in PRECISIONS.items():
            for name, loader in loaders.items():
                own = copy.deepcopy(student)
                given: dict[str, Any] = {
                    "device": "cpu",
                    "max_epochs": WARM_UP + rounds,
                    "train_data_loader": loader,
                    "network": own,
                    "optimizer": torch.optim.AdamW(own.parameters(), lr=1e-3),
                    "inferer": PrecisionInferer(**settings),
                    "decollate": False,
                }
                if name == NO_TEACHER:
                    trainer: SupervisedTrainer = SupervisedTrainer(loss_function=loss, **given)
                else:
                    trainer = DistillationTrainer(
                        loss_function=DistillationLoss(label_loss=loss, kd_weight=0.5, temperature=2.0),
                        teacher=asked if name == STORED else copy.deepcopy(teacher),
                        **given,
                    )
                entered.append(Contestant.by_trainer(name, precision, trainer))
                reading[name, precision] = _seconds_of_loading(trainer)
        measure(entered, rounds, LIVE)
    print("\n| step | precision | loader, ms a batch | loader and step, times as long as no teacher |")
    print("| --- | --- | --- | --- |")
    both = {
        (one.name, one.precision): [
            sum(pair) for pair in zip(one.seconds, reading[one.name, one.precision], strict=True)
        ][WARM_UP:]
        for one in entered
    }
    for name, precision in both:
        loading = statistics.median(reading[name, precision][WARM_UP:])
        against = ratio(both[name, precision], both[NO_TEACHER, precision])
        print(f"| {name} | {precision} | {1000 * loading:.1f} | {against} |")


def _seconds_of_loading(trainer: Engine) -> list[float]:
    """Seconds that each batch of a trainer takes its thread to load."""
    seconds: list[float] = []
    started = 0.0

    @trainer.on(Events.GET_BATCH_STARTED)
    def start() -> None:
        nonlocal started
        started = time.thread_time()

    @trainer.on(Events.GET_BATCH_COMPLETED)
    def stop() -> None:
        seconds.append(time.thread_time() - started)

    return seconds


if __name__ == "__main__":
    main()
