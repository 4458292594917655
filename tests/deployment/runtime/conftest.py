from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .model import write_model

_NEEDS = ("numpy", "scipy", "pillow", "onnxruntime", "pydicom")


@pytest.fixture
def model(tmp_path) -> Path:
    return write_model(tmp_path / "student.onnx")


@pytest.fixture(scope="session")
def torch_free(project_dir, tmp_path_factory) -> Path:
    """The Python of an environment with a wheel of this project and what the runtime needs, no torch and no MONAI."""
    folder = tmp_path_factory.mktemp("torch_free")
    source = folder / "source"  # a copy, so that the build leaves nothing in the checkout
    shutil.copytree(project_dir / "monai_fetalkd", source / "monai_fetalkd")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(project_dir / name, source)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "-c", project_dir / "constraints.txt", *_NEEDS], check=True)
    subprocess.run([*install, "--no-deps", source], check=True)
    return python
