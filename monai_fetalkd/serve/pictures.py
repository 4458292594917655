"""Frames to look at: small pictures, and where in the frame the network attends."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from monai_fetalkd.frames import Frame, find_sector
from monai_fetalkd.runtime import Preprocessing, Recognizer

from .answers import Attention, Picture

__all__ = ["input_box", "make_picture"]

_LONGEST_SIDE = 720
_QUALITY = 88


def make_picture(recognizer: Recognizer, frame: Frame) -> Picture:
    """Draw a frame small enough to be sent, with the attention of the network where it tells it.

    Args:
        recognizer: the network.
        frame: the frame.

    Returns:
        A JPEG of at most 720 pixels a side as a data URI.
    """
    height, width = frame.pixels.shape
    image = Image.fromarray(np.rint(frame.pixels).astype(np.uint8))
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    attention = _attention(recognizer, frame) if recognizer.attention else None
    return Picture(frame=frame.number, width=width, height=height, source=source, attention=attention)


def input_box(preprocessing: Preprocessing, frame: Frame) -> tuple[float, float, float, float]:
    """Where the input of the network lies in a frame.

    Args:
        preprocessing: what the frame goes through.
        frame: the frame.

    Returns:
        Top, left, bottom and right in pixels of the frame. As the input has black around the frame, or around its scan
        sector, to fill its shape, they may lie outside.

    Example:
        >>> input_box(Preprocessing(size=(64, 64), crop=False), Frame(np.zeros((100, 200))))
        (-50.0, 0.0, 150.0, 200.0)
    """
    top, left = 0, 0
    bottom, right = frame.pixels.shape
    if preprocessing.crop:
        if frame.region is not None:
            top, left, bottom, right = frame.region
        box = find_sector(frame.pixels[top:bottom, left:right]).box
        top, left, bottom, right = top + box[0], left + box[1], top + box[2], left + box[3]
    scale = min(preprocessing.size[0] / (bottom - top), preprocessing.size[1] / (right - left))
    start, stop = [], []
    for size, low, high in zip(preprocessing.size, (top, left), (bottom, right), strict=True):
        length = max(1, round(scale * (high - low)))  # of the frame within the input
        before, pixel = (size - length) // 2, (high - low) / length
        start.append(low - before * pixel)
        stop.append(low + (size - before) * pixel)
    return start[0], start[1], stop[0], stop[1]


def _attention(recognizer: Recognizer, frame: Frame) -> Attention:
    [values] = recognizer.explain(recognizer.preprocessing(frame.pixels, frame.region)[None])
    return Attention(values=values.round(3).tolist(), box=input_box(recognizer.preprocessing, frame))
