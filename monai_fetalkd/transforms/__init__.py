"""Dictionary transforms for ultrasound frames: reading, the picture without its chrome, augmentation."""

from __future__ import annotations

from .crop import CropSectord, SectorMaskd
from .intensity import RandShadowd, RandSpeckled, RandTimeGaind
from .letterbox import Letterboxd
from .load import LoadFramed
from .spatial import RandSectorAffined

__all__ = [
    "CropSectord",
    "Letterboxd",
    "LoadFramed",
    "RandSectorAffined",
    "RandShadowd",
    "RandSpeckled",
    "RandTimeGaind",
    "SectorMaskd",
]
