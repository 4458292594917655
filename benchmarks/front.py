"""Milliseconds of students by width and size, as exported INT8 on one core: one axis of accuracy against time.

    python benchmarks/front.py
    python benchmarks/front.py --exported runs/w8_s96/exported runs/w16_s128/exported

Without folders, weights and frames are random: arithmetic takes as long as with others. A folder is one that ``python
-m monai_fetalkd export`` has written; its row tells the accuracy on the frames that the export was verified on too. All
take turns in random order in one process, batch 1, one thread, ONNX Runtime, the network alone. The processor's own
time is the one to compare: other programs disturb it least.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from runtime_speed import take_turns

from monai_fetalkd.deployment.export import NetworkWithAttention, trace, write_int8, write_onnx
from monai_fetalkd.deployment.runtime.sessions import open_sessions
from monai_fetalkd.evaluation.cost import multiply_accumulates
from monai_fetalkd.networks import student_resnet
from monai_fetalkd.utils.markdown import markdown_table

_WIDTHS, _SIZES = (8, 12, 16, 24), (96, 128, 160, 224)
_INT8, _REPORT = "student.int8.onnx", "export.json"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exported", type=Path, nargs="+", default=[], help="folders of exported students")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnxruntime"))
    print(f"{versions}; load {os.getloadavg()[0]:.1f}; {arguments.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as folder:
        rows = {str(path): (path / _INT8, _told(path)) for path in arguments.exported} or _random(Path(folder))
        calls = {name: _network_alone(file) for name, (file, _) in rows.items()}
    table = [["student", "about it", "processor, ms", "ms by the clock", "a second of the processor"]]
    for name, times in take_turns(calls, arguments.rounds).items():
        clock, busy = (statistics.median(seconds) for seconds in zip(*times, strict=True))
        table.append([name, rows[name][1], f"{1000 * busy:.2f}", f"{1000 * clock:.2f}", f"{1 / busy:.0f}"])
    print(markdown_table(table))


def _network_alone(file: Path) -> partial[np.ndarray]:
    (session,) = open_sessions(file, "onnxruntime")
    return partial(session, np.random.default_rng(0).random((1, *session.shape), dtype=np.float32), "logits")


def _told(folder: Path) -> str:
    told = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
    return f"accuracy {told[_INT8]['accuracy']:.3f} ({told['split']})"


def _random(folder: Path) -> dict[str, tuple[Path, str]]:
    """Students with random weights, calibrated on noise."""
    rows = {}
    for width in _WIDTHS:
        network = student_resnet(width).eval()
        parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        for size in _SIZES:
            shape = (1, size, size)
            float32, int8 = (folder / f"{width}_{size}.{kind}.onnx" for kind in ("float32", "int8"))
            write_onnx(trace(NetworkWithAttention(network, "layer4"), shape), ["logits", "attention"], float32, {})
            write_int8(float32, list(np.random.default_rng(0).random((4, *shape), dtype=np.float32)), int8, {})
            macs = multiply_accumulates(network, shape) / 1e6
            rows[f"width {width}, {size} x {size}"] = (int8, f"{parameters:.2f} M parameters, {macs:.0f} M MACs")
    return rows


if __name__ == "__main__":
    main()
