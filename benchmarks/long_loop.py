"""Ten minutes of frames through ``python -m monai_fetalkd stream``, on a part of a core, with damaged frames in it.

python benchmarks/long_loop.py

The frames (the phantom at 480 x 480, as JPEG) go to the standard input of the command at 30 a second, as a probe sends
them, whether it keeps up or not. One in a hundred is damaged. The command gets a tenth of a core: it is stopped for
nine tenths of every 50 ms (SIGSTOP, SIGCONT). Measured are the frames answered, dropped and undecodable, the delay from
the moment at which a frame is due to its answer, and the memory of the command once a second.

The network is a student of width 16 at 224 x 224 with random weights: what it answers is nonsense, how long it takes is
not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from phantom_loop import jpeg, loop_frames

from monai_fetalkd.deployment.export import NetworkWithAttention, write_onnx
from monai_fetalkd.deployment.export.formats import trace
from monai_fetalkd.deployment.runtime import Preprocessing
from monai_fetalkd.networks import student_resnet
from monai_fetalkd.ultrasound.data.phantom import PLANE_NAMES

PERIOD = 0.05  # seconds
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")


def untrained_student(folder: Path, side: int = 224) -> Path:
    """Export a student with random weights.

    Args:
        folder: where to.
        side: height and width of its input.

    Returns:
        The ONNX file.
    """
    metadata = {
        "class_names": json.dumps(PLANE_NAMES),
        "preprocessing": json.dumps(Preprocessing((side, side), crop=True).to_dict()),
        "temperature": "1.0",
        "threshold": "null",
        "outputs": json.dumps(["logits", "attention"]),
    }
    network = NetworkWithAttention(student_resnet(width=16, num_classes=len(PLANE_NAMES)), "layer4")
    write_onnx(trace(network, (1, side, side)), ["logits", "attention"], folder / "student.onnx", metadata)
    return folder / "student.onnx"


def memory(process: int) -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE / 1e6


def damage(file: bytes, cut: bool) -> bytes:
    """A JPEG file that cannot be decoded.

    Args:
        file: the whole one.
        cut: whether its second half is missing; otherwise it has its length and its end, but no header.

    Returns:
        What is left of it.
    """
    return file[: len(file) // 2] if cut else file[:20] + bytes(600) + file[620:]


class Loop:
    """One run of the command.

    Args:
        model: the exported network.
        frames: files of frames, sent one after the other and again from the first.
        count: how many frames to send.
        fps: frames a second.
        share: of a core that the command gets; 1 for all that there is.
    """

    def __init__(self, model: Path, frames: Sequence[bytes], count: int, fps: float, share: float) -> None:
        self._command = [sys.executable, "-m", "monai_fetalkd", "stream", str(model), "-", "--backend", "onnxruntime"]
        self._frames, self._count, self._fps, self._share = frames, count, fps, share
        self._start = 0.0
        self._over = threading.Event()
        self.delays: list[float] = []
        self.summary: dict[str, float] = {}
        self.megabytes: list[float] = []
        self.seconds = 0.0  # of a core

    def run(self) -> None:
        """Send all frames and read all answers."""
        with subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(self._frames[0])  # frame 0 tells when the command has started
            process.stdin.flush()
            self._read(process.stdout.readline(), -np.inf)
            self._start = time.monotonic()
            threads = [
                threading.Thread(target=self._send, args=(process.stdin,)),
                threading.Thread(target=self._watch, args=(process.pid,)),
                threading.Thread(target=self._cap, args=(process.pid,)),
            ]
            for thread in threads:
                thread.start()
            for line in process.stdout:
                self._read(line, time.monotonic())
            self._over.set()
            for thread in threads:
                thread.join()

    def _read(self, line: bytes, now: float) -> None:
        content = json.loads(line)
        if "summary" in content:
            self.summary = content["summary"]
        elif now > 0:
            self.delays.append(1000 * (now - self._due(content["frame"])))

    def _due(self, number: int) -> float:
        return self._start + number / self._fps

    def _send(self, pipe: IO[bytes]) -> None:
        with pipe:
            for number in range(1, self._count):
                time.sleep(max(0.0, self._due(number) - time.monotonic()))
                pipe.write(self._frames[number % len(self._frames)])
                pipe.flush()

    def _watch(self, process: int) -> None:
        while not self._over.wait(1):
            self.megabytes.append(memory(process))
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            self.seconds = (int(fields[11]) + int(fields[12])) / TICK

    def _cap(self, process: int) -> None:
        while self._share < 1 and not self._over.is_set():
            os.kill(process, signal.SIGSTOP)
            time.sleep((1 - self._share) * PERIOD)
            os.kill(process, signal.SIGCONT)
            time.sleep(self._share * PERIOD)


def main() -> None:
    """Print what came of the frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=18_000, metavar="N", help="how many (18000)")
    parser.add_argument("--fps", type=float, default=30, metavar="N", help="frames a second (30)")
    parser.add_argument("--share", type=float, default=0.1, metavar="P", help="share of a core, up to 1 (0.1)")
    parser.add_argument("--damaged", type=int, default=100, metavar="N", help="one frame in N is damaged (100)")
    arguments = parser.parse_args()
    frames = [jpeg(frame) for frame in loop_frames(480, seed=0)[:300]]
    for turn, number in enumerate(range(arguments.damaged - 1, len(frames), arguments.damaged)):
        frames[number] = damage(frames[number], cut=turn % 2 == 1)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(untrained_student(Path(folder)), frames, arguments.frames, arguments.fps, min(1.0, arguments.share))
        start = time.monotonic()
        loop.run()
        wall = time.monotonic() - start
    median, p95, longest = np.quantile(loop.delays, (0.5, 0.95, 1))
    early = loop.megabytes[len(loop.megabytes) // 10]
    print(f"{arguments.frames} frames in {wall:.0f} s; the command used {loop.seconds / wall:.0%} of a core")
    print(", ".join(f"{key} {loop.summary[key]}" for key in ("seen", "answered", "dropped", "undecodable")))
    print(f"delay: median {median:.0f} ms, 95th percentile {p95:.0f} ms, longest {longest:.0f} ms")
    third = len(loop.delays) // 3
    parts = [np.median(loop.delays[third * part : third * (part + 1)]) for part in range(3)]
    print(f"median delay in each third: {', '.join(f'{part:.0f}' for part in parts)} ms")
    last, most = loop.megabytes[-1], max(loop.megabytes)
    print(f"memory: {early:.0f} MB after a tenth, {last:.0f} MB at the end, {most:.0f} MB at most")


if __name__ == "__main__":
    main()
