from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from monai_fetalkd.evaluation.report import Report
from monai_fetalkd.evaluation.scores.output import write_evaluation
from monai_fetalkd.evaluation.scores.predictions import Predictions
from monai_fetalkd.evaluation.scores.result import evaluate

CLASSES = ("brain & head", "<b>femur</b>", "_other $x$")
LAYERS = ("0", "2")


@dataclass
class Frames:
    """Noise in place of ultrasound: an indexable dataset with its rows."""

    data: list[dict[str, Any]]

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {**self.data[index], "image": torch.rand(1, 20, 24, generator=generator)}


@dataclass
class Run:
    """A finished run, small enough to be made in a moment."""

    folder: Path
    dataset: Frames
    networks: dict[str, tuple[nn.Module, str]]
    history: dict[str, tuple[str, str]]
    content: dict[str, Any]
    predictions: dict[str, Predictions]
    layers: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"teacher": LAYERS, "student": LAYERS})

    def report(self, **changes: Any) -> Report:
        arguments = {
            "folder": self.folder / "evaluation",
            "output": self.folder / "report.html",
            "dataset": self.dataset,
            "networks": self.networks,
            "layers": self.layers,
            "history": self.history,
            "log_dir": self.folder / "logs",
        }
        return Report(**{**arguments, **changes})


def network(width: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2),
        nn.ReLU(inplace=False),
        nn.Conv2d(width, width, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, len(CLASSES)),
    )


@pytest.fixture
def run(drawn_run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the finished run that a test may spoil. Its figures stay empty: drawing takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, buffer, **options: buffer.write("<svg></svg>"))
    return drawn_run


@pytest.fixture
def drawn_run(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run whose figures are drawn."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)

    def moved(path: str) -> str:
        return str(tmp_path / Path(path).name)

    return replace(
        finished,
        folder=tmp_path,
        dataset=Frames(list(finished.dataset.data)),
        networks={name: (copy.deepcopy(given), moved(path)) for name, (given, path) in finished.networks.items()},
        history={title: (name, moved(path)) for title, (name, path) in finished.history.items()},
    )


@pytest.fixture(scope="session")
def page_path(finished: Run) -> Path:
    """The report of the finished run, for tests that only look at it."""
    return finished.report()()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    tmp_path = tmp_path_factory.mktemp("run")
    rows = [
        {
            "image": f"/hospital/{number}.png",
            "label": number % 3,
            "group": f"patient-{number // 2}-secret",
            "source": f"site <{number % 2}>",
            "machine": "",
        }
        for number in range(24)
    ]
    networks, predictions, validation, costs = {}, {}, {}, {}
    for seed, (name, width) in enumerate({"teacher": 4, "student": 2}.items()):
        path = tmp_path / f"{name}.pt"
        torch.save(network(width, seed).state_dict(), path)
        networks[name] = (network(width, seed + 10), str(path))
        logits = np.random.default_rng(seed).normal(size=(24, 3)) + 2 * np.eye(3)[[row["label"] for row in rows]]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        predictions[name] = Predictions.from_rows(CLASSES, rows, probabilities)
        validation[name] = Predictions.from_rows(
            CLASSES, [{**row, "image": f"validation-{row['image']}"} for row in rows], probabilities[::-1]
        )
        costs[name] = {
            "parameters": 1234 * width,
            "macs": 56789 * width,
            "bytes": 5000 * width,
            "milliseconds": {"median": 0.25 * width, "p95": 0.5 * width},
            "peak_memory_bytes": 10**6 * width,
        }
    torch.save(network(2, 5).state_dict(), tmp_path / "initial.pt")
    settings = {"seed": 7, "command": "run <it>", "versions": {"torch": "2.99"}}
    content = evaluate(predictions, validation, costs, settings, repeats=20)
    write_evaluation(content, predictions, tmp_path / "evaluation")
    _write_logs(tmp_path / "logs")
    history = {
        "the teacher": ("teacher", networks["teacher"][1]),
        "before stage 1": ("student", str(tmp_path / "initial.pt")),
        "after stage 2": ("student", networks["student"][1]),
    }
    return Run(tmp_path, Frames(rows), networks, history, content, predictions)


def _write_logs(folder: Path) -> None:
    for stage, parts in {"stage 1, attention": ("at",), "stage 2, distillation": ("ce", "kd")}.items():
        with SummaryWriter(str(folder / stage)) as writer:
            for step in range(1, 13):
                for name in ("loss", *parts):
                    writer.add_scalar(name, 1 / step, step)
            if stage.startswith("stage 2"):
                for epoch in range(1, 4):
                    writer.add_scalar("accuracy", epoch / 4, epoch)
                    writer.add_scalar("macro_f1", epoch / 5, epoch)
