"""How long a frame takes from grey levels to the head circumference, on one thread, without torch.

python benchmarks/head_speed.py student.onnx --frames hc18/images
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from monai_fetalkd.deployment.runtime import Segmenter
from monai_fetalkd.ultrasound.biometry import head_ellipse
from monai_fetalkd.ultrasound.frames import read_frame
from monai_fetalkd.utils.markdown import markdown_table

CLOCKS = {"ms": time.perf_counter, "ms of the processor": time.process_time}  # others may use it too


def main() -> None:
    """Print medians and 95th percentiles over the frames."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--backend", default="onnxruntime")
    arguments = parser.parse_args()
    segmenter = Segmenter(arguments.model, backend=arguments.backend, threads=1)
    files = sorted(arguments.frames.iterdir())[: arguments.count]
    frames = [read_frame(str(file)).pixels for file in files]
    segmenter(frames[0])
    rows = [["step", *(f"{clock}, {what}" for clock in CLOCKS for what in ("median", "95th percentile"))]]
    totals = np.zeros((len(CLOCKS), len(frames)))
    results: list[Any] = frames
    steps: dict[str, Callable[[Any], Any]] = {
        "network and mask": segmenter,
        "ellipse": lambda mask: head_ellipse(mask == 1),
    }
    for name, step in steps.items():
        taken = np.empty_like(totals)
        for number, value in enumerate(results):
            starts = [clock() for clock in CLOCKS.values()]
            results[number] = step(value)
            taken[:, number] = [clock() - start for clock, start in zip(CLOCKS.values(), starts, strict=True)]
        totals += taken
        rows.append([name, *_texts(taken)])
    rows.append(["both", *_texts(totals)])
    print(f"{len(frames)} frames, {segmenter.backend}\n\n{markdown_table(rows)}")


def _texts(taken: np.ndarray) -> list[str]:
    return [f"{1000 * value:.2f}" for row in taken for value in (statistics.median(row), np.quantile(row, 0.95))]


if __name__ == "__main__":
    main()
