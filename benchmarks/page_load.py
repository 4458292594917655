"""Eight clients upload to ``python -m monai_fetalkd serve`` for a minute.

python benchmarks/page_load.py

It starts the server itself, on a free port of this machine, and asks no other. Each client sends what the page sends,
one upload after the other: nine frames (the phantom at 480 x 480, as JPEG), then a DICOM cine of 50, with pictures and
attention asked for. Measured are the answers by status, the time from upload to answer, and the memory of the server
once a second.

The network is a student of width 16 at 224 x 224 with random weights.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from long_loop import memory, untrained_student
from phantom_loop import cine, jpeg, loop_frames

MOST = 50_000  # requests of all clients together


class Load:
    """Clients that ask a server of this machine.

    Args:
        port: of the server.
        uploads: what they send, by its name.
        seconds: for how long.
    """

    def __init__(self, port: int, uploads: Mapping[str, bytes], seconds: float) -> None:
        self._port, self._uploads = port, uploads
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.statuses: Counter[int | str] = Counter()
        self.times: dict[str, list[float]] = {name: [] for name in uploads}

    def run(self, clients: int) -> None:
        """Ask until the time is over."""
        threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self) -> None:
        connection = http.client.HTTPConnection("localhost", self._port, timeout=60)
        number = 0
        while time.monotonic() < self._end and self.statuses.total() < MOST:
            number += 1
            name = "cine" if number % 10 == 0 else "frame"
            start = time.perf_counter()
            status: int | str
            try:
                connection.request("POST", "/predict?pictures=true", self._uploads[name])
                response = connection.getresponse()
                response.read()
                status = response.status
            except OSError as error:
                status = type(error).__name__
                connection.close()
            with self._lock:
                self.statuses[status] += 1
                self.times[name].append(1000 * (time.perf_counter() - start))


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="how many, up to 64 (8)")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="for how long, up to 600 (60)")
    arguments = parser.parse_args()
    if not (0 < arguments.clients <= 64 and 0 < arguments.seconds <= 600):
        parser.error("1 to 64 clients, and up to 600 seconds")
    frames = loop_frames(480, seed=0)[:50]
    file = BytesIO()
    cine(frames).save_as(file, enforce_file_format=True)
    uploads = {"frame": jpeg(frames[0]), "cine": file.getvalue()}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "monai_fetalkd", "serve", str(untrained_student(Path(folder)))]
        command += ["--port", "0", "--requests_per_minute", str(MOST), "--backend", "onnxruntime"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline().split()[4].rpartition(":")[2])
                megabytes = [memory(server.pid)]
                load = Load(port, uploads, arguments.seconds)
                worker = threading.Thread(target=load.run, args=(arguments.clients,))
                worker.start()
                while worker.is_alive():
                    worker.join(1)
                    megabytes.append(memory(server.pid))
            finally:
                server.kill()
    answers = ", ".join(f"{count} of status {status}" for status, count in load.statuses.items())
    print(f"{arguments.clients} clients in {arguments.seconds:g} s: {answers}")
    for name, times in load.times.items():
        if times:
            median, p95, longest = np.quantile(times, (0.5, 0.95, 1))
            size = f"{name} of {len(uploads[name]) / 1000:.0f} kB"
            figures = f"median {median:.0f} ms, 95th percentile {p95:.0f} ms, longest {longest:.0f} ms"
            print(f"{size}: {len(times)} answers, {figures}")
    early = megabytes[len(megabytes) // 6]
    last, most = megabytes[-1], max(megabytes)
    print(f"memory: {early:.0f} MB after a sixth, {last:.0f} MB at the end, {most:.0f} MB at most")


if __name__ == "__main__":
    main()
