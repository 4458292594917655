"""Pictures, ultrasound DICOM and volumes, all read as two-dimensional grey frames, and the scan sector in them.

Nothing here needs torch or MONAI.
"""

from __future__ import annotations

from .frame import MAX_PIXELS, MIN_SIDE, BlankFrameError, Frame, FrameError, FrameWarning
from .reader import count_frames, find_frames, iterate_frames, read_frame
from .sector import Sector, crop_to_sector, find_sector

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "BlankFrameError",
    "Frame",
    "FrameError",
    "FrameWarning",
    "Sector",
    "count_frames",
    "crop_to_sector",
    "find_frames",
    "find_sector",
    "iterate_frames",
    "read_frame",
]
