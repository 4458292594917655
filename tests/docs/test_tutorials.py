"""The tutorials run, as scripts and as notebooks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.py"))


def test_there_is_one_for_each_reader():
    assert {path.stem for path in TUTORIALS} == {"frames", "losses", "segmentation"}


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_it_runs_as_a_script(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "student" in done.stdout


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_it_runs_as_a_notebook(path, tmp_path):
    import jupytext
    from nbclient import NotebookClient

    notebook = NotebookClient(
        jupytext.read(path), timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()  # raises the error of a cell
    assert any("student" in output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
