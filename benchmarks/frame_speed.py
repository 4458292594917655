"""From a decoded frame, or a frame of a DICOM cine, to its answer, with one exported student.

    python benchmarks/frame_speed.py --model bundle/models/student.int8.onnx --data ../shared/data

One thread, batch 1, ONNX Runtime (and OpenVINO where it is installed). What is compared takes turns in random order in
one process. The table tells the processor's own time beside that of the clock: where the clock takes longer, other
programs had the core. The sector is found anew in every frame, so that the answer of a frame never depends on those
before it. How often a frame that is held still has the sector of the one before is printed too: keeping that one would
change the answers of the others.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
from runtime_speed import INSTALLED, decoded, describe, frame_paths, measure_cines, take_turns, write_cine

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.deployment.runtime.letterbox import letterbox
from monai_fetalkd.ultrasound.frames import crop_to_sector, find_sector

_CINE = 32  # frames


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an exported student that crops to the sector")
    parser.add_argument("--data", type=Path, help="folder with frames of 959 x 661; without it, one is drawn")
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    recognizers = {name: Recognizer(arguments.model, name) for name in INSTALLED}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy", *INSTALLED))
    print(f"{versions}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = [decoded(path) for path in frame_paths(arguments.data, folder)]
        measure_steps(recognizers, frames, arguments.rounds)
        cines = {"uncompressed": folder / "plain.dcm", "JPEG": folder / "jpeg.dcm"}
        for kind, path in cines.items():
            write_cine(path, (frames * _CINE)[:_CINE], jpeg=kind == "JPEG")
        measure_cines(recognizers, cines, _CINE, max(5, arguments.rounds // 20))
    share, most = repeated_sectors(frames[:16])
    print(f"\nFrames whose noise is drawn anew: {share:.0%} have the sector of the one before;")
    print(f"an edge of its box moves by {most} pixels at most")


def measure_steps(recognizers: dict[str, Recognizer], frames: Sequence[np.ndarray], rounds: int) -> None:
    """A decoded frame to its answer, and each step alone."""
    first = next(iter(recognizers.values()))
    size = first.preprocessing.size
    cropped = [crop_to_sector(frame) for frame in frames]
    inputs = [first.preprocessing(frame)[None] for frame in frames]

    def each(step: Callable[[np.ndarray], object], values: Sequence[np.ndarray]) -> Callable[[], object]:
        turns = cycle(values)
        return lambda: step(next(turns))

    calls = {f"frame to answer, {name}": each(recognizer, frames) for name, recognizer in recognizers.items()}
    calls["crop and resize"] = each(first.preprocessing, frames)
    calls["- find the sector"] = each(find_sector, frames)
    calls["- resize what is cropped"] = each(partial(letterbox, size=size), cropped)
    calls |= {f"network alone, {name}": each(recognizer.batch, inputs) for name, recognizer in recognizers.items()}
    height, width = frames[0].shape
    print(f"\nA decoded frame of {width} x {height} to its answer at {size}; {len(frames)} frames, {rounds} rounds\n")
    print("| step | ms, median | 95th percentile | processor | a second |\n" + "| --- " * 5 + "|")
    for name, seconds in take_turns(calls, rounds).items():
        print(f"| {name} {describe(seconds)}")


def repeated_sectors(frames: Sequence[np.ndarray], count: int = 8) -> tuple[float, int]:
    """The share of frames whose sector is that of the frame before, and the most that an edge of its box moves.

    Each frame is held still, with grey levels that are multiplied by noise of 10 %, drawn anew ``count`` times.
    """
    random = np.random.default_rng(0)
    same, moved = [], 0
    for frame in frames:
        noisy = (frame * random.normal(1, 0.1, frame.shape) for _ in range(count))
        for before, after in pairwise(find_sector(each.clip(0, 255).astype(np.uint8)) for each in noisy):
            same.append(before.box == after.box and np.array_equal(before.mask, after.mask))
            moved = max(moved, int(np.abs(np.subtract(before.box, after.box)).max()))
    return float(np.mean(same)), moved


if __name__ == "__main__":
    main()
