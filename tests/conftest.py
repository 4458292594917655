from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
