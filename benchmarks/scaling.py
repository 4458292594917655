"""What training with stored targets costs against the number of frames: time a frame, memory, disk.

    python benchmarks/scaling.py

For each number of phantom frames (64 x 64) a process of its own trains a slim student for two epochs with attention and
soft targets: in the first the frames are read into the cache on disk and the teacher computes its targets, in the
second both are read. What counts is the time of the main thread, which loads and trains; the memory is the most that
the process held, less what it held before the first frame.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import monai
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.transforms import Compose, EnsureTyped, RandFlipd, ScaleIntensityRanged

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.networks import student_resnet, teacher_resnet
from monai_fetalkd.targets import FixedViews, TeacherTargets
from monai_fetalkd.ultrasound.data import PLANE_NAMES, frame_dataset, load_datalist, make_phantom
from monai_fetalkd.ultrasound.transforms import LoadFramed

LAYERS = ["layer1", "layer2", "layer3", "layer4"]
FEWEST = 6  # frames that a section of the phantom must have


def train(folder: Path, frames: int) -> dict[str, float]:
    """Train on so many frames; milliseconds a frame of each epoch, megabytes of memory and of disk."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    phantom = make_phantom(folder / "phantom", frames, FEWEST, FEWEST)
    rows = load_datalist(phantom, PLANE_NAMES).section("training")
    transform = Compose(
        [
            LoadFramed("image"),
            ScaleIntensityRanged("image", 0, 255, 0, 1),
            EnsureTyped("image", track_meta=False),
            RandFlipd("image", prob=0.5, spatial_axis=1),
            EnsureTyped("image", track_meta=False),
        ]
    )
    student, teacher = student_resnet(16), teacher_resnet(18)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    dataset = frame_dataset(rows, transform, folder / "cache", progress=False)
    reading = time.thread_time() - start
    trainer = DistillationTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=DataLoader(FixedViews(dataset, views=1), batch_size=16, shuffle=True),
        network=student,
        teacher=teacher,
        optimizer=torch.optim.AdamW(student.parameters()),
        student_layers=LAYERS,
        loss_function=DistillationLoss(feature_losses={"at": AttentionTransferLoss()}),
        targets=TeacherTargets(folder / "targets"),
        decollate=False,
    )
    clock: list[float] = []
    for event in (Events.EPOCH_STARTED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, lambda: clock.append(time.thread_time()))
    trainer.run()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    stored = sum(path.stat().st_size for path in (folder / "targets").rglob("*.npy"))
    return {
        "reading": 1000 * reading / frames,
        "first epoch": 1000 * (clock[1] - clock[0]) / frames,
        "second epoch": 1000 * (clock[3] - clock[2]) / frames,
        "memory": held / 1000,
        "targets": stored / 1e6,
    }


def main() -> None:
    """Run each number of frames in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(train(Path(folder), arguments.one)))
        return
    print(f"torch {torch.__version__}, monai {monai.__version__}, one thread, 64 x 64, batch 16\n")
    print("| frames | reading, ms a frame | first epoch | second epoch | memory, MB | targets on disk, MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for frames in arguments.frames:
        command = [sys.executable, __file__, "--one", str(frames)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(done.stdout.splitlines()[-1])
        times = " | ".join(f"{told[name]:.1f}" for name in ("reading", "first epoch", "second epoch"))
        print(f"| {frames} | {times} | {told['memory']:.0f} | {told['targets']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
