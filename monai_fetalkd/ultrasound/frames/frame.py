"""A frame, how large one may be, and the error that says why a file holds none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "BlankFrameError",
    "Frame",
    "FrameError",
    "FrameSource",
    "FrameWarning",
    "check_scans",
    "check_size",
    "inflated_limit",
]

MAX_PIXELS = 32_000_000
"""The largest frame that is decoded, in pixels; some thirty times the largest of an ultrasound machine."""

MIN_SIDE = 16
"""The least height and width of a frame, in pixels."""

MAX_BYTES = 2**30
"""The most that a volume or a deflated file may hold once it is decompressed."""

_MAX_RATIO = 50
_ANY_RATIO = 2**27
_MAX_SCANS = 100


class FrameError(ValueError):
    """A file that cannot be read as a frame, and why.

    Args:
        path: the file.
        reason: what is wrong with it, as the end of a sentence.

    Example:
        >>> print(FrameError("a.png", "it is empty"))
        The frame 'a.png' cannot be read: it is empty.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that the error survives the way out of a worker process
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"The frame '{self.path}' cannot be read: {self.reason}."


class BlankFrameError(FrameError):
    """A frame that is whole, but of one grey level only: black before the probe touches, or where a clip was cut."""

    def __init__(self, path: str, reason: str = "it holds one grey level only") -> None:
        super().__init__(path, reason)


class FrameWarning(UserWarning):
    """A file is read as a frame, though something in it could not be used."""


@dataclass(frozen=True)
class Frame:
    """One grey frame as it is displayed.

    Args:
        pixels: grey levels from 0 (black) to 255 (white), float32 of shape (height, width); row 0 is on top, and a
            pixel as high as wide.
        number: index of the frame in its file, 0 for a single picture.
        time: milliseconds since the first frame of its cine, where the file tells.
        region: ``(top, left, bottom, right)`` of the B-mode picture in pixels, the ends excluded, where the header of a
            DICOM file holds a plausible one.
        pixel_size: height and width of a pixel in mm, where the header of a DICOM file tells it for its B-mode regions.
    """

    pixels: np.ndarray
    number: int = 0
    time: float | None = None
    region: tuple[int, int, int, int] | None = None
    pixel_size: tuple[float, float] | None = None


class FrameSource(Protocol):
    """An open file of frames: its header is read, its pixels are not yet."""

    @property
    def count(self) -> int:
        """Number of frames."""

    def frame(self, number: int) -> Frame:
        """Decode one frame."""

    def time(self, number: int) -> float | None:
        """Milliseconds from the first frame to this one, where the file tells; it may be one that is damaged."""


def check_size(path: str, height: int, width: int) -> None:
    """Refuse a frame of absurd size before it is decoded.

    Raises:
        FrameError: when a side is shorter than ``MIN_SIDE`` or the frame larger than ``MAX_PIXELS``.
    """
    if min(height, width) < MIN_SIDE:
        raise FrameError(path, f"{width} x {height} pixels are too few, {MIN_SIDE} a side are the least")
    if height * width > MAX_PIXELS:
        raise FrameError(path, f"{width} x {height} pixels are too many, {MAX_PIXELS:,} are the most")


def check_scans(path: str, scans: int) -> None:
    """Refuse a progressive JPEG that would be decoded for minutes: each scan goes through all pixels once more.

    Raises:
        FrameError: when it has more scans than any encoder writes.
    """
    if scans > _MAX_SCANS:
        raise FrameError(path, f"it is a JPEG of {scans:,} scans, {_MAX_SCANS} are the most")


def inflated_limit(packed: int) -> int:
    """How many bytes a file of so many may become when it is decompressed as a whole.

    Ultrasound becomes some ten times as large. A small file that becomes gigabytes was made to fill the memory.
    """
    return min(MAX_BYTES, max(_ANY_RATIO, _MAX_RATIO * packed))
