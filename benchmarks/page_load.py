"""Clients upload whole and damaged files to ``python -m monai_fetalkd serve`` until 2,000 requests are answered.

python benchmarks/page_load.py

It starts the server itself, on a free port of this machine, and asks no other. Each client sends what the page sends,
with pictures and attention asked for, one upload after the other: frames of the phantom (240 x 240) as JPEG, PNG, GIF,
TIFF, BMP and DICOM, a DICOM cine of 10, and between them files that are cut short, overwritten, empty, text, or a JPEG
file of 20,000 scans, which would take minutes to decode. Each has a status that is right; any other counts as an error.
Measured are the time from upload to answer, and once a second the memory of the server and of the processes that read
the files.

The network is a student of width 16 at 224 x 224 with random weights.
"""

from __future__ import annotations

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
from long_loop import damage, memory, untrained_student
from phantom_loop import cine, jpeg, loop_frames
from PIL import Image

PER_MINUTE = 1_000_000  # of one client: here all have one address
SCANS = 20_000


@dataclass
class Upload:
    """A file and what came of it.

    Args:
        data: its bytes.
        expected: the status that is right.
    """

    data: bytes
    expected: int = 200
    times: list[float] = field(default_factory=list)  # milliseconds


class Load:
    """Clients that ask a server of this machine.

    Args:
        port: of the server.
        uploads: what they send, by its name.
        requests: how many requests they send together.
    """

    def __init__(self, port: int, uploads: dict[str, Upload], requests: int) -> None:
        self._port, self._uploads, self._requests = port, uploads, requests
        self._numbers = count()
        self._lock = threading.Lock()
        self.statuses: Counter[int | str] = Counter()
        self.errors: Counter[str] = Counter()

    def run(self, clients: int) -> None:
        """Ask until all requests are answered."""
        threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self) -> None:
        names = list(self._uploads)
        connection = http.client.HTTPConnection("localhost", self._port, timeout=120)
        while (number := next(self._numbers)) < self._requests:
            name = names[number % len(names)]
            start = time.perf_counter()
            status: int | str
            try:
                connection.request("POST", "/predict?pictures=true", self._uploads[name].data)
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                connection.close()
            with self._lock:
                self.statuses[status] += 1
                self._uploads[name].times.append(1000 * (time.perf_counter() - start))
                if status != self._uploads[name].expected:
                    self.errors[f"{name}: {status}"] += 1


def make_uploads() -> dict[str, Upload]:
    """Whole and damaged files, by what they are."""
    frames = loop_frames(240, seed=0)[:10]
    uploads = {"JPEG": Upload(jpeg(frames[0]))}
    for kind in ("PNG", "GIF", "TIFF", "BMP"):
        stream = BytesIO()
        Image.fromarray(frames[0]).save(stream, kind)
        uploads[kind] = Upload(stream.getvalue())
    for name, part in (("DICOM", frames[:1]), ("DICOM, 10 frames", frames)):
        stream = BytesIO()
        cine(part).save_as(stream, enforce_file_format=True)
        uploads[name] = Upload(stream.getvalue())
    for kind in ("JPEG", "PNG"):
        whole = uploads[kind].data
        uploads[f"{kind} cut short"] = Upload(damage(whole, cut=True), 422)
        uploads[f"{kind} overwritten"] = Upload(damage(whole, cut=False), 422)
    uploads["DICOM cut short"] = Upload(uploads["DICOM"].data[:600], 422)
    uploads["text"] = Upload(b"patient,plane\n" * 1000, 415)
    uploads["empty"] = Upload(b"", 422)
    uploads[f"JPEG of {SCANS:,} scans"] = Upload(many_scans(), 422)
    return uploads


def many_scans() -> bytes:
    """A valid progressive JPEG file of 2000 x 2000 whose last scan is there thousands of times."""
    stream = BytesIO()
    Image.new("L", (2000, 2000)).save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + SCANS * last + whole[-2:]


def tree(process: int) -> list[int]:
    """A process and those that it has started, and they in turn."""
    processes = [process]
    for parent in processes:
        tasks = Path(f"/proc/{parent}/task")
        try:
            children = " ".join((tasks / task / "children").read_text() for task in os.listdir(tasks))
        except OSError:  # it has just ended
            continue
        processes += map(int, children.split())
    return processes


def memory_of_tree(process: int) -> float:
    """Memory of a process and those that it has started in MB; what they share is counted once."""
    kilobytes = 0
    for one in tree(process):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        kilobytes += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return kilobytes * 1024 / 1e6


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=4, metavar="N", help="how many, up to 16 (4)")
    parser.add_argument("--requests", type=int, default=2000, metavar="N", help="how many, of all together (2000)")
    arguments = parser.parse_args()
    if not (0 < arguments.clients <= 16 and arguments.requests > 0):
        parser.error("1 to 16 clients, and one request or more")
    uploads = make_uploads()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "monai_fetalkd", "serve", str(untrained_student(Path(folder)))]
        command += ["--port", "0", "--requests_per_minute", str(PER_MINUTE), "--backend", "onnxruntime"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline().split()[4].rpartition(":")[2])
                Load(port, uploads, 4 * len(uploads)).run(arguments.clients)  # starts the processes that read
                for upload in uploads.values():
                    upload.times.clear()
                megabytes = [(memory(server.pid), memory_of_tree(server.pid))]
                load = Load(port, uploads, arguments.requests)
                worker = threading.Thread(target=load.run, args=(arguments.clients,))
                start = time.perf_counter()
                worker.start()
                while worker.is_alive():
                    worker.join(1)
                    megabytes.append((memory(server.pid), memory_of_tree(server.pid)))
                wall = time.perf_counter() - start
            finally:
                server.kill()
    answers = ", ".join(f"{number} of status {status}" for status, number in sorted(load.statuses.items(), key=str))
    print(f"{load.statuses.total()} requests of {arguments.clients} clients in {wall:.0f} s: {answers}")
    print(f"errors: {load.errors.total()} {dict(load.errors) or ''}")
    for name, upload in uploads.items():
        if upload.times:
            median, p95, longest = np.quantile(upload.times, (0.5, 0.95, 1))
            size = f"{name}, {len(upload.data) / 1000:.0f} kB, status {upload.expected}"
            figures = f"median {median:.0f} ms, 95th percentile {p95:.0f} ms, longest {longest:.0f} ms"
            print(f"{size}: {len(upload.times)} answers, {figures}")
    for name, values in zip(("the server", "the server and its processes"), zip(*megabytes, strict=True), strict=True):
        steps = [f"{values[len(values) * part // 4]:.0f}" for part in range(4)]
        told = f"{', '.join(steps)} and {values[-1]:.0f} MB at 0, 25, 50, 75 and 100 % of the time"
        print(f"memory of {name}: {told}, {max(values):.0f} MB at most")


if __name__ == "__main__":
    main()
