"""Dictionary transforms: reading of ultrasound frames, the picture without its chrome, augmentation; label checks."""

from __future__ import annotations

from .crop import CropSectord, SectorMaskd
from .intensity import RandShadowd, RandSpeckled, RandTimeGaind
from .labels import CheckLabelsd
from .letterbox import Letterboxd
from .load import LoadFramed
from .spatial import RandSectorAffined

__all__ = [
    "CheckLabelsd",
    "CropSectord",
    "Letterboxd",
    "LoadFramed",
    "RandSectorAffined",
    "RandShadowd",
    "RandSpeckled",
    "RandTimeGaind",
    "SectorMaskd",
]
