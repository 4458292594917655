"""Whether the loader keeps up with a slim student: an epoch of cached, augmented frames against its training steps.

    python benchmarks/loader_speed.py

Generated frames of 1 x 224 x 224 in memory, through all random transforms of training, in batches of 16; the student of
width 16 with cross entropy and AdamW, float32. In each round, the loader alone, steps on one kept batch, and the two
together take turns, in one process and on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

import monai
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, DeleteItemsd, RandFlipd
from torch import Tensor
from torch.nn import functional

from monai_fetalkd.networks import student_resnet
from monai_fetalkd.ultrasound.transforms import RandSectorAffined, RandShadowd, RandSpeckled, RandTimeGaind

SIZE, BATCH = 224, 16
WORKERS = (0, 1)


def make_loader(frames: int, num_workers: int) -> DataLoader:
    """A loader of noise in a fan; what the transforms cost does not depend on the anatomy."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 60.0, torch.arange(SIZE) - SIZE / 2, indexing="ij")
    sector = (torch.atan2(x, y).abs() < 0.6).float()[None]
    rows = [
        {"image": torch.rand(1, SIZE, SIZE) * sector, "sector": sector, "label": index % 6} for index in range(frames)
    ]
    transforms = [
        RandSectorAffined("image"),
        RandTimeGaind("image"),
        RandSpeckled("image"),
        RandShadowd("image"),
        DeleteItemsd("sector"),
        RandFlipd("image", prob=0.5, spatial_axis=1),
    ]
    # none of these transforms writes to its input, so the cache need not copy its frames
    dataset = CacheDataset(rows, Compose(transforms), progress=False, copy_cache=False)
    return DataLoader(dataset, batch_size=BATCH, num_workers=num_workers, shuffle=True)


def make_step() -> Callable[[Tensor, Tensor], None]:
    """A training step of the slim student."""
    student = student_resnet(width=16)
    optimizer = torch.optim.AdamW(student.parameters())

    def step(image: Tensor, label: Tensor) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(student(image), label).backward()
        optimizer.step()

    return step


def seconds(work: Callable[[dict], None], batches: Iterable[dict]) -> float:
    """How long it takes to do this with every batch."""
    start = time.perf_counter()
    for batch in batches:
        work(batch)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count; one more comes first to warm up")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loaders = {number: make_loader(arguments.frames, number) for number in WORKERS}
    train = make_step()
    kept = next(iter(loaders[0]))

    def step(batch: dict) -> None:
        train(batch["image"].as_tensor(), batch["label"])

    def idle(batch: dict) -> None:
        pass

    works = {"steps on one kept batch": partial(seconds, step, [kept] * len(loaders[0]))}
    for number, loader in loaders.items():
        works[f"loader alone, {number} workers"] = partial(seconds, idle, loader)
        works[f"loader and steps, {number} workers"] = partial(seconds, step, loader)
    rounds = [{name: work() for name, work in works.items()} for _ in range(arguments.rounds + 1)][1:]

    print(f"torch {torch.__version__}, monai {monai.__version__}, {torch.get_num_threads()} thread, {SIZE} x {SIZE}")
    print(f"{arguments.frames} frames an epoch in batches of {BATCH}; medians of {arguments.rounds} rounds")
    for name in works:
        time_of_frame = 1000 * statistics.median(row[name] for row in rounds) / arguments.frames
        ratio = statistics.median(row[name] / row["steps on one kept batch"] for row in rounds)
        print(f"{name:30} {time_of_frame:6.2f} ms a frame, {ratio:6.3f} of the steps")


if __name__ == "__main__":
    main()
