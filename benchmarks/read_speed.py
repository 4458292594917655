"""What reading a frame costs: file to 224 x 224 without the chrome, against decoding and one resize by Pillow alone.

    python benchmarks/read_speed.py --data ../shared/data

Frames are the 959 x 661 PNGs of the folder, as FETAL_PLANES_DB has them, or drawn ones of that size without a folder.
Both ways read the same frames, in turns (who goes first alternates), in one process and one thread, whose own time on
the processor is counted: another process beside it, or a disk that is read for the first time, changes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai
import numpy as np
import PIL
import torch
from PIL import Image

from monai_fetalkd.ultrasound.frames import find_sector
from monai_fetalkd.ultrasound.transforms import CropSectord, Letterboxd, LoadFramed

WIDTH, HEIGHT, SIDE = 959, 661, 224
STEPS: dict[str, Callable[[Any], Any]] = {
    "read": LoadFramed("image"),
    "crop to the sector": CropSectord("image"),
    "resize": Letterboxd("image", (SIDE, SIDE)),
}


RESIZES = {"its default, bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def by_pillow(path: Path, resize: Image.Resampling) -> Image.Image:
    """The least that any reader does."""
    return Image.open(path).convert("L").resize((SIDE, SIDE), resize)


def by_transforms(path: Path) -> dict[str, float]:
    """What the package does; the seconds of each step."""
    row: dict[str, Any] = {"image": str(path)}
    seconds = {}
    for name, transform in STEPS.items():
        start = time.thread_time()
        row = transform(row)
        seconds[name] = time.thread_time() - start
    return seconds


def find_frames(data: Path) -> list[Path]:
    """The PNGs of the folder that have the size."""
    paths = []
    for path in sorted(data.rglob("*.png")):
        with Image.open(path) as image:
            if image.size == (WIDTH, HEIGHT):
                paths.append(path)
    return paths


def draw_frame(folder: Path) -> Path:
    """A fan of smooth speckle, whose PNG takes about as many bytes as a real one."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    angle, radius = np.arctan2(x - WIDTH / 2, y + 120), np.hypot(x - WIDTH / 2, y + 120)
    speckle = np.asarray(Image.fromarray(rng.rayleigh(60, (220, 320)).astype(np.float32)).resize((WIDTH, HEIGHT)))
    levels = np.where((np.abs(angle) < 0.7) & (radius > 160) & (radius < 770), speckle, 0)
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(folder / "fan.png")
    return folder / "fan.png"


def describe(seconds: list[float]) -> str:
    """Median and quartiles in milliseconds."""
    low, middle, high = (1000 * value for value in statistics.quantiles(seconds, n=4))
    return f"{middle:7.2f} ms (median; quartiles {low:.2f} to {high:.2f})"


def measure(paths: list[Path], rounds: int) -> None:
    """Read in turns and print."""
    pillow: dict[str, list[float]] = {name: [] for name in RESIZES}
    steps: list[dict[str, float]] = []
    search: list[float] = []
    for turn in range(-4, rounds):
        path = paths[turn % len(paths)]
        for name in ("", *RESIZES) if turn % 2 else (*RESIZES, ""):
            if name:
                pillow[name].append(seconds_of_pillow(path, name))
            else:
                steps.append(by_transforms(path))
        pixels = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        start = time.thread_time()
        find_sector(pixels)
        search.append(time.thread_time() - start)

    # the first four rounds warm up
    ours = [sum(step.values()) for step in steps[4:]]
    size = statistics.mean(path.stat().st_size for path in paths) / 1000
    print(f"monai {monai.__version__}, torch {torch.__version__}, numpy {np.__version__}, Pillow {PIL.__version__}")
    print(f"{len(paths)} frame(s) of {WIDTH} x {HEIGHT}, {size:.0f} kB each, {rounds} rounds, one thread")
    print(f"{'monai_fetalkd':30}{describe(ours)}")
    for name in STEPS:
        print(f"  {name:28}{describe([step[name] for step in steps[4:]])}")
    for name, seconds in pillow.items():
        ratios = [one / other for one, other in zip(ours, seconds[4:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{'Pillow, resize ' + name:30}{describe(seconds[4:])}")
        print(f"  ratio to it {middle:.3f} (median of pairs; quartiles {low:.3f} to {high:.3f})")
    print(f"{'find_sector alone':30}{describe(search[4:])}")


def seconds_of_pillow(path: Path, name: str) -> float:
    """The seconds of Pillow with one of its ways to resize."""
    start = time.thread_time()
    by_pillow(path, RESIZES[name])
    return time.thread_time() - start


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with frames; without it, one is drawn")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = find_frames(arguments.data) if arguments.data else [draw_frame(Path(folder))]
        if not paths:
            parser.error(f"there is no PNG of {WIDTH} x {HEIGHT} in {arguments.data}")
        measure(paths, arguments.rounds)


if __name__ == "__main__":
    main()
