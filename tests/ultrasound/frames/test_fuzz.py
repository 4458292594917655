from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gdcm")
pytest.importorskip("nibabel")

MEMORY = 512 * 2**20  # bytes that reading damaged copies may need beyond reading the files themselves


def fuzz(project_dir: Path, kind: str, inputs: int, seed: int) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.ultrasound.frames.fuzz", kind, str(inputs), str(seed)],
        cwd=project_dir,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, f"a decoder hung or crashed ({done.returncode}): {done.stderr[-500:]}"
    return json.loads(done.stdout)


def test_damaged_files_raise_nothing_undocumented_and_neither_hang_nor_fill_the_memory(project_dir):
    told = fuzz(project_dir, "all", inputs=2000, seed=0)
    assert told["undocumented"] == []
    assert 500 < told["refused"] < 2000
    assert told["grown"] < MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("kind", ["pictures", "volumes", "plain_dicom", "compressed_dicom"])
def test_many_more_damaged_files_do_neither(project_dir, kind, seed):
    told = fuzz(project_dir, kind, inputs=3000, seed=seed)
    assert told["undocumented"] == []
    assert told["grown"] < MEMORY
