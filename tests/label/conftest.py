from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from monai_fetalkd.ultrasound.data import PLANE_NAMES


@dataclass
class Server:
    """A MONAI Label server that runs, and its REST interface."""

    url: str
    log: Path
    process: subprocess.Popen

    def ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=300, **arguments)

    def get(self, path: str, **arguments: Any) -> requests.Response:
        return self.ask("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> requests.Response:
        return self.ask("POST", path, **arguments)

    def infer(self, model: str, image: str, **params: Any) -> requests.Response:
        data = {"params": json.dumps({"device": "cpu", **params})}
        return self.post(f"/infer/{model}", params={"image": image, "output": "json"}, data=data)

    def label(self, image: str, annotation: Any, **query: str) -> requests.Response:
        text = annotation if isinstance(annotation, str) else json.dumps(annotation)
        files = {"label": ("label.json", text)}
        return self.ask("PUT", "/datastore/label", params={"image": image, **query}, files=files)

    def train(self, model: str, **params: Any) -> dict[str, Any]:
        """Start a training task, wait for its end and return its status."""
        answer = self.post(f"/train/{model}", json={"device": "cpu", **params})
        assert answer.status_code == 200, answer.text
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            status = self.get("/train/").json()
            if status["status"] not in ("SUBMITTED", "RUNNING"):
                return status
            time.sleep(1)
        raise TimeoutError(f"{model} trains on after five minutes: {status}")


@pytest.fixture(scope="session")
def start_server() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Start a server as the documentation does, wait until it answers, and stop it."""

    @contextlib.contextmanager
    def start(
        app: Path,
        studies: Path,
        conf: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
        ready: int = 200,
    ) -> Iterator[Server]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "monailabel.main", "start_server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--app", str(app), "--studies", str(studies)]
        for name, value in (conf or {}).items():
            command += ["--conf", name, value]
        log = app.parent / f"server-{port}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=app.parent,
                env={**os.environ, "MONAI_LABEL_SESSION_PATH": str(app.parent / "sessions")} | (env or {}),
            )
        server = Server(f"http://127.0.0.1:{port}", log, process)
        try:
            for _ in range(240):
                assert process.poll() is None, f"The server ended: {log.read_text()[-3000:]}"
                with contextlib.suppress(requests.ConnectionError):
                    if server.get("/info/").status_code == ready:
                        break
                time.sleep(0.5)
            else:
                raise TimeoutError(log.read_text()[-3000:])
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    return start


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    """A frame of a class: a bright band, lower from class to class, so that a tiny network learns it in a few steps."""

    def frame(label: int, seed: int = 0, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
        pixels = np.random.default_rng([label, seed]).normal(40, 8, shape)
        top = label * shape[0] // len(PLANE_NAMES)
        pixels[top : top + shape[0] // len(PLANE_NAMES)] += 160
        return np.clip(pixels, 0, 255).astype(np.uint8)

    return frame


@pytest.fixture(scope="session")
def write_frames(draw) -> Callable[[Path, int], None]:
    """Fill a folder with PNG frames of each class, named by class and number."""

    def write(folder: Path, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for label in range(len(PLANE_NAMES)):
            for number in range(count):
                Image.fromarray(draw(label, number)).save(folder / f"c{label}_{number}.png")

    return write
