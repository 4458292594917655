"""How long the check of a datalist takes.

    python benchmarks/check_speed.py --frames 12400 --workers 2

Reads frames of the size of FETAL_PLANES_DB (959 x 661, grey PNG), drawn from the phantom, and looks for duplicates
among them: the two parts of a check that take time. A few hundred different files are read over and over to make up
the number. Each is decoded as often as a file of its own would be, but after its first time it comes out of the cache
of the operating system and not from a disk. ``--data`` takes the frames of a folder instead of the phantom's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from monai_fetalkd.ultrasound.data import phantom_frame
from monai_fetalkd.ultrasound.data.check import Fingerprint, find_pairs, read_fingerprints
from monai_fetalkd.ultrasound.frames import find_frames

WIDTH, HEIGHT = 959, 661


def write_frames(folder: Path, count: int) -> None:
    """Phantom frames on a screen of the size of FETAL_PLANES_DB, with noise, to make PNG as large as real frames."""
    rng = np.random.default_rng(0)
    left = (WIDTH - HEIGHT) // 2
    for number in range(count):
        frame = Image.fromarray(phantom_frame(number % 6, rng, size=128)).resize((HEIGHT, HEIGHT))
        screen = np.zeros((HEIGHT, WIDTH))
        screen[:, left : left + HEIGHT] = np.asarray(frame)
        screen += (screen > 0) * rng.normal(0, 4, screen.shape)
        Image.fromarray(screen.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}.png")


def main() -> None:
    """Time the two parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=12_400)
    parser.add_argument("--files", type=int, default=300, help="different files of the phantom")
    parser.add_argument("--data", type=Path, help="a folder of frames")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data is None:
            write_frames(Path(folder), arguments.files)
        files = find_frames(arguments.data or folder)
        rows = [files[number % len(files)] for number in range(arguments.frames)]
        size = sum(os.path.getsize(row["image"]) for row in files) / len(files)

        start = time.perf_counter()
        results = read_fingerprints(rows, arguments.workers)
        read = time.perf_counter()
        fingerprints = [result for result in results if isinstance(result, Fingerprint)]
        pairs = find_pairs(fingerprints, [(str(number % len(files)),) for number in range(len(fingerprints))])
        end = time.perf_counter()
    print(f"{len(rows)} frames of {len(files)} files, {size / 1e3:.0f} kB on average, {arguments.workers} workers")
    print(f"reading  {read - start:7.1f} s  {len(rows) / (read - start):.0f} frames a second")
    print(f"search   {end - read:7.1f} s  {len(pairs)} pairs")
    print(f"check    {(end - start) / 60:7.2f} min  {(read - start) / (end - start):.0%} of it reading")


if __name__ == "__main__":
    main()
