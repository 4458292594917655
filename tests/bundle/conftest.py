from __future__ import annotations

import contextlib
import copy
import logging
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_fetalkd.ultrasound.data import PLANE_NAMES

_TINY = {
    "image_size": [32, 32],
    "batch_size": 8,
    "device": "cpu",
    "num_workers": 0,
    "threads": 1,
    "bootstrap_repeats": 20,
    "network_def": {"_target_": "monai_fetalkd.networks.student_resnet", "width": 2, "layers": [1, 1, 1, 1]},
    "teacher#network_def": {"_target_": "monai_fetalkd.networks.student_resnet", "width": 4, "layers": [1, 1, 1, 1]},
    "layers": ["layer1", "layer2", "layer3"],  # the last has a map of one position in frames of 32 x 32
    "teacher#epochs": 1,
    "attention#epochs": 1,
    "train#epochs": 1,
}


@pytest.fixture(scope="session")
def tiny() -> dict:
    """What makes the networks of ``train.json`` and their training as small as can be."""
    return copy.deepcopy(_TINY)


@pytest.fixture(scope="session")
def training() -> dict:
    """What makes a run of ``train.json`` end after its stages, where neither summary nor report are looked at."""
    return {"run": ["@run_teacher", "@run_baseline", "@run_attention", "@run_distillation"]}


@pytest.fixture(scope="session")
def measured(training) -> dict:
    """The same with the summary: what is left out is the report, which takes most of the time of a tiny run."""
    return {"run": [*training["run"], "@run_summary"]}


@pytest.fixture(scope="session")
def bundle_dir(project_dir) -> Path:
    return project_dir / "bundle"


@pytest.fixture(scope="session")
def frames_dir(tmp_path_factory) -> Path:
    """A datalist of noise, brighter from class to class, in the shape of real frames."""
    folder = tmp_path_factory.mktemp("frames")
    generator = np.random.default_rng(0)
    rows = ["image,label,split"]
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        for label, name in enumerate(PLANE_NAMES):
            for index in range(count):
                pixels = np.clip(generator.normal(30 + 35 * label, 20, (40, 48)), 0, 255).astype(np.uint8)
                file = f"{split}_{label}_{index}.png"
                Image.fromarray(pixels).save(folder / file)
                rows.append(f"{file},{name},{split}")
    (folder / "planes.csv").write_text("\n".join(rows))
    return folder


@contextlib.contextmanager
def monai_bundle() -> Iterator[None]:
    """Be ``python -m monai.bundle``, and undo what a run sets for its process: log handlers, who prints errors."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("monai.bundle.__main__", None))
        patch.setattr(sys, "excepthook", sys.excepthook)
        yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def make_workflow(bundle_dir: Path, *configs: str, kind: str = "train", **overrides) -> ConfigWorkflow:
    tiny = copy.deepcopy(_TINY) if "train.json" in configs else {}
    return ConfigWorkflow(
        config_file=[str(bundle_dir / "configs" / config) for config in configs],
        logging_file=False,
        workflow_type=kind,
        **{"bundle_root": str(bundle_dir), **tiny, **overrides},
    )


def _run(flow: ConfigWorkflow, run_id: str = "run") -> ConfigWorkflow:
    flow.run_id = run_id
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture
def workflow(bundle_dir, frames_dir, tmp_path):
    """Build a workflow of the bundle as ``python -m monai.bundle run`` does, with tiny networks and frames."""

    def build(*configs: str, kind: str = "train", **overrides) -> ConfigWorkflow:
        given = {"output_dir": str(tmp_path / "out"), "dataset_dir": str(frames_dir / "planes.csv"), **overrides}
        return make_workflow(bundle_dir, *configs, kind=kind, **given)

    with monai_bundle():
        yield build


@pytest.fixture
def run(workflow):
    """Initialize, run and finalize, as ``python -m monai.bundle run`` does."""

    def go(*configs: str, run_id: str = "run", **overrides) -> ConfigWorkflow:
        return _run(workflow(*(configs or ("train.json",)), **overrides), run_id)

    return go


@pytest.fixture(scope="session")
def trained_once(bundle_dir, frames_dir, measured, tmp_path_factory) -> Path:
    """The folder of a finished run of ``train.json``, without a report; not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    with monai_bundle():
        given = {"output_dir": str(folder), "dataset_dir": str(frames_dir / "planes.csv"), **measured}
        _run(make_workflow(bundle_dir, "train.json", **given))
    return folder


@pytest.fixture
def trained(trained_once, tmp_path) -> Path:
    """The same of one's own, where ``run`` writes."""
    return shutil.copytree(trained_once, tmp_path / "out")


@pytest.fixture
def arguments(bundle_dir, frames_dir, tiny):
    """The command line of a run of tiny networks, started by ``python`` or by another launcher."""

    def line(output_dir, *more, configs=("train.json",), launcher=(sys.executable,), **overrides):
        given = {
            **tiny,
            "bundle_root": bundle_dir,
            "dataset_dir": frames_dir / "planes.csv",
            "output_dir": output_dir,
            **overrides,
        }
        files = str([str(bundle_dir / "configs" / config) for config in configs])
        options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        return [*launcher, "-m", "monai.bundle", "run", "--config_file", files, *options, *more]

    return line


@pytest.fixture
def monai_command(monkeypatch, capfd):
    """What ``python -m monai.bundle`` with these words writes to standard error, in this process."""

    def call(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["monai.bundle", *map(str, words)])
        capfd.readouterr()
        with monai_bundle():
            try:
                runpy.run_module("monai.bundle", run_name="__main__")
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)  # as the interpreter does at the end
        return capfd.readouterr().err

    return call


@pytest.fixture
def command(arguments):
    return lambda *args: subprocess.run(arguments(*args), capture_output=True, text=True, check=False)
