"""Video files and capture devices, through OpenCV, which is imported here alone and only when one is opened."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import ModuleType
from typing import Any

import numpy as np

from monai_fetalkd.frames import Frame, FrameError
from monai_fetalkd.frames.levels import grey_levels, luma

from .arrivals import Arrival, Source

__all__ = ["import_opencv", "open_video"]


def import_opencv() -> ModuleType:
    """OpenCV, silenced: what its decoders complain of is counted frame by frame instead.

    Raises:
        ValueError: when it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise ValueError('Video needs OpenCV: run `pip install "monai-fetalkd[stream]"`.') from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


@contextmanager
def open_video(name: str | int, fps: float | None = None) -> Iterator[Source]:
    """Open a video file, or a capture device by its number.

    OpenCV decodes a video in step, as each frame builds upon those before; so a dropped frame has been decoded too.

    Args:
        name: path of the file, or number of the device.
        fps: frames a second, whatever the file tells; many a WMV tells 1000.

    Yields:
        The source, live for a device.

    Raises:
        ValueError: when it cannot be opened, or OpenCV is not installed.
    """
    cv2 = import_opencv()
    capture = cv2.VideoCapture(name)
    if not capture.isOpened():
        hint = f"The capture device {name} cannot be opened." if isinstance(name, int) else _unknown(name)
        raise ValueError(hint)
    busy = threading.Lock()
    live = isinstance(name, int)
    fps = fps or capture.get(cv2.CAP_PROP_FPS) or None
    try:
        yield Source(_captured(capture, busy, str(name), None if live else fps), live, fps)
    finally:
        # a device that has stopped to answer keeps its reader waiting; releasing it under the reader would crash
        if busy.acquire(timeout=1):
            capture.release()


def _unknown(name: str) -> str:
    return f"'{name}' is neither a file of frames (DICOM, pictures, NIfTI, MetaImage) nor a video that OpenCV reads."


def _captured(capture: Any, busy: threading.Lock, name: str, fps: float | None) -> Iterator[Arrival]:
    start: float | None = None
    for number in count():
        with busy:
            if not capture.grab():
                return
            now = time.monotonic()
            found, picture = capture.retrieve()
        start = now if start is None else start
        moment = 1000.0 * number / fps if fps else 1000 * (now - start)
        yield Arrival(number, moment, partial(_decode, f"{name}, {number}", picture if found else None))


def _decode(name: str, picture: np.ndarray | None) -> Frame:
    if picture is None:
        raise FrameError(name, "OpenCV cannot decode it")
    return Frame(grey_levels(name, luma(picture[..., ::-1]) if picture.ndim == 3 else picture))
