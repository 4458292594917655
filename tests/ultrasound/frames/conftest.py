from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom.dataset import Dataset


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes an array as a picture, bytes as they are, or a dataset as a file, and returns its path."""

    def _write(content: Any, name: str) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, Dataset):
            content.save_as(path, enforce_file_format=True)
        else:
            Image.fromarray(content).save(path)
        return str(path)

    return _write
