from __future__ import annotations

import pytest
import torch


@pytest.fixture
def fan():
    """A frame of a curved probe, (1, 64, 64): noise in the sector, 0 outside; and the sector itself."""
    y, x = torch.meshgrid(torch.arange(64) + 20.5, torch.arange(64) - 31.5, indexing="ij")
    radius = torch.hypot(x, y)
    mask = ((radius > 26) & (radius < 82) & (torch.atan2(x, y).abs() < 0.6)).float()[None]
    pixels = torch.rand((1, 64, 64), generator=torch.Generator().manual_seed(0))
    return {"image": mask * (0.1 + 0.8 * pixels), "sector": mask}
