"""Video files and capture devices, through OpenCV, which is imported here alone and only when one is opened."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from monai_fetalkd.ultrasound.frames import Frame, FrameError
from monai_fetalkd.ultrasound.frames.kinds import UNKNOWN, unsupported
from monai_fetalkd.ultrasound.frames.levels import grey_levels, luma
from monai_fetalkd.utils.requirements import require

from .arrivals import Arrival, FrameStream

__all__ = ["import_opencv", "open_video"]

_logger = logging.getLogger(__name__)

# OpenCV would also draw text as pictures, show the cover of a song, and follow a playlist to other hosts
_CONTAINERS = (
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x00\x00\x01\xb3"),  # MPEG-1 and -2 video
    (0, b"\x00\x00\x01\xb0"),  # MPEG-4 video
    (0, b"\x00\x00\x00\x01"),  # H.264 and H.265
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # WMV
    (0, b"FLV\x01"),
    (0, b"OggS"),
    (0, b"YUV4MPEG2 "),
    (0, b"DKIF"),  # VP8, VP9 and AV1 in IVF
    (8, b"AVI "),
    *((4, box) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),  # MP4, MOV
)
_TRANSPORT_STREAMS = ((0, 188), (4, 192))  # offset and length of packets that begin with 0x47
_LONGEST_GAP = 10_000  # frames that cannot be decoded, until a file counts as ended
_LONGEST_PAUSE = 10  # the same where the number of frames is not known


def import_opencv() -> ModuleType:
    """OpenCV, silenced: what its decoders complain of is counted frame by frame instead.

    Raises:
        ImportError: when it is not installed.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet
    require("To read or write video", "cv2")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


@contextmanager
def open_video(name: str | int, fps: float | None = None) -> Iterator[FrameStream]:
    """Open a video file, or a capture device by its number.

    OpenCV decodes a video in step, as each frame builds upon those before; so a dropped frame has been decoded too.

    Args:
        name: path of the file, or number of the device.
        fps: frames a second, whatever the file tells; many a WMV tells 1000.

    Yields:
        The source, live for a device.

    Raises:
        ValueError: when it is no video, cannot be opened, or OpenCV is not installed.
    """
    live = isinstance(name, int)
    if isinstance(name, str):
        _check_container(name)
    cv2 = import_opencv()
    capture = cv2.VideoCapture(name)
    if not capture.isOpened():
        damaged = f"The video '{name}' cannot be opened: it is damaged or cut short, or OpenCV lacks its codec."
        raise ValueError(f"The capture device {name} cannot be opened." if live else damaged)
    busy = threading.Lock()
    given, fps = fps is not None, fps or capture.get(cv2.CAP_PROP_FPS) or None
    try:
        arrivals = _captured(capture, busy) if live else _decoded(capture, cv2, str(name), fps, given)
        yield FrameStream(arrivals, live, fps)
    finally:
        # a device that no longer answers keeps its reader waiting; releasing it under the reader would crash
        if busy.acquire(timeout=1):
            capture.release()


def _check_container(name: str) -> None:
    with open(name, "rb") as file:
        head = file.read(512)
    is_container = any(head.startswith(mark, place) for place, mark in _CONTAINERS) or any(
        len(head) > start + 2 * length and head[start] == head[start + length] == head[start + 2 * length] == 0x47
        for start, length in _TRANSPORT_STREAMS
    )
    if reason := unsupported(head):
        raise FrameError(name, reason)
    if not is_container:
        raise FrameError(name, f"{UNKNOWN}, nor a video that OpenCV reads (AVI, MP4, MOV, MKV, WebM, MPEG, WMV, ...)")


def _captured(capture: Any, busy: threading.Lock) -> Iterator[Arrival]:
    """The frames of a device, at the times of their coming."""
    start = time.monotonic()
    number = misses = 0
    while misses < _LONGEST_PAUSE:
        with busy:
            came = capture.grab()
            found, picture = capture.retrieve() if came else (False, None)
        misses = 0 if came else misses + 1
        if came:
            start = start if number else time.monotonic()
            moment = 1000 * (time.monotonic() - start)
            yield Arrival(number, moment, partial(_decode, f"device, {number}", picture if found else None))
            number += 1


def _decoded(capture: Any, cv2: ModuleType, name: str, fps: float | None, given: bool) -> Iterator[Arrival]:
    """The frames of a file; those that cannot be decoded are known once another follows that can.

    A rate that the user has ``given`` counts before the times of the file.
    """
    total = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    longest_gap = min(max(total, _LONGEST_PAUSE), _LONGEST_GAP)
    number = misses = 0
    first = last = -1.0
    while misses <= longest_gap and (misses == 0 or total <= 0 or number + misses < total):
        if not capture.grab():
            misses += 1
            continue
        for lost in range(number, number + misses):
            yield Arrival(lost, _time(lost, fps), partial(_decode, f"{name}, {lost}", None))
        number, misses = number + misses, 0
        found, picture = capture.retrieve()
        position = capture.get(cv2.CAP_PROP_POS_MSEC)
        first = position if last < 0 else first
        told = not given and position > last  # else the file has no times, or they do not count
        last = max(last, position)
        moment = position - first if told else _time(number, fps)
        yield Arrival(number, moment, partial(_decode, f"{name}, {number}", picture if found else None))
        number += 1
    if number < total:
        _logger.warning("The video '%s' tells of %d frames, but ends after %d.", name, total, number)


def _time(number: int, fps: float | None) -> float | None:
    return 1000.0 * number / fps if fps else None


def _decode(name: str, picture: np.ndarray | None) -> Frame:
    if picture is None:
        raise FrameError(name, "OpenCV cannot decode it")
    return Frame(grey_levels(name, luma(picture[..., ::-1]) if picture.ndim == 3 else picture))
