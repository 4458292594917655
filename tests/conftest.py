from __future__ import annotations

from pathlib import Path

import pytest
import torch

# the networks here are so small that a second thread costs more than it brings, ten times more on a busy machine
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def project_dir() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_dir(project_dir: Path) -> Path:
    """Real frames and reference figures, which are not part of the project."""
    folder = project_dir.parent / "shared"
    if not folder.is_dir():
        pytest.skip("there is no folder 'shared' beside the checkout")
    return folder
