"""Pictures, ultrasound DICOM and volumes, all read as two-dimensional grey frames."""

from __future__ import annotations

from .frame import MAX_PIXELS, MIN_SIDE, Frame, FrameError
from .reader import count_frames, find_frames, iterate_frames, read_frame

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "Frame",
    "FrameError",
    "count_frames",
    "find_frames",
    "iterate_frames",
    "read_frame",
]
