from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.ultrasound.data import phantom_frame


@pytest.fixture(scope="session")
def frames() -> list[np.ndarray]:
    """Four frames of each plane of the phantom, no two of one patient."""
    return [phantom_frame(plane, rng=10 * plane + number, size=128) for plane in range(6) for number in range(4)]


@pytest.fixture
def write(tmp_path):
    """Saves frames as PNG and gives their rows, each of a group of its own."""

    def save(pixels, name, group=None, label=0):
        path = tmp_path / name
        Image.fromarray(pixels).save(path)
        return {"image": str(path), "label": label, "group": group or name, "source": "phantom"}

    return save
