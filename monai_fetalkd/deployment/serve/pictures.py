"""Frames to look at: small pictures, and where in the frame the network attends."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from monai_fetalkd.deployment.runtime import Preprocessing, Recognizer
from monai_fetalkd.deployment.stream import HeadAnswer
from monai_fetalkd.ultrasound.frames import Frame, Sector, find_sector
from monai_fetalkd.ultrasound.maps import is_fine

from .responses import Attention, HeadPicture, Picture

__all__ = ["input_box", "make_head_picture", "make_picture"]

_LARGE, _SMALL = 720, 360  # pixels of the longer side
_QUALITY = 88
_MASK = "#ffd400"
_CORNERS = 96  # of an outline, at its top and again at its bottom


def make_picture(recognizer: Recognizer, frame: Frame, is_first: bool = True) -> Picture:
    """Draw a frame small enough to be sent.

    Args:
        recognizer: the network.
        frame: the frame.
        is_first: whether it is one to be looked at first: then it is larger, and has the attention of the network where
            that has at least 7 positions a side.

    Returns:
        A JPEG of at most 720 pixels a side, or 360, as a data URI.
    """
    height, width = frame.pixels.shape
    source = _jpeg(frame, _LARGE if is_first else _SMALL)
    grid = recognizer.attention_grid
    attention = _attention(recognizer, frame) if is_first and grid and is_fine(grid) else None
    return Picture(frame=frame.number, width=width, height=height, source=source, attention=attention)


def make_head_picture(answer: HeadAnswer) -> HeadPicture:
    """Draw a frame small enough to be sent, and the head in it.

    Args:
        answer: the answer to the frame, with its frame and mask.

    Returns:
        A JPEG of at most 720 pixels a side and the mask as a PNG of the same size, as data URIs.
    """
    height, width = answer.mask.shape
    inside = Image.fromarray(answer.mask.astype(np.uint8) * 255)
    inside.thumbnail((_LARGE, _LARGE))
    mask = Image.new("RGBA", inside.size, _MASK)
    mask.putalpha(inside)
    points = [] if answer.ellipse is None else answer.ellipse.points(_CORNERS).round(2).tolist()
    return HeadPicture(
        frame=answer.number,
        width=width,
        height=height,
        source=_jpeg(answer.frame, _LARGE),
        mask=_data_uri(mask, "PNG"),
        outline=[(column, row) for row, column in points],
    )


def _jpeg(frame: Frame, longest: int) -> str:
    image = Image.fromarray(np.rint(frame.pixels).astype(np.uint8))
    image.thumbnail((longest, longest))
    return _data_uri(image, "JPEG", quality=_QUALITY)


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


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
    return _fitted(preprocessing, _sector(frame).box if preprocessing.crop else (0, 0, *frame.pixels.shape))


def _sector(frame: Frame) -> Sector:
    """The scan sector in the whole frame."""
    height, width = frame.pixels.shape
    top, left, bottom, right = frame.region or (0, 0, height, width)
    sector = find_sector(frame.pixels[top:bottom, left:right])
    box = sector.box
    return Sector((top + box[0], left + box[1], top + box[2], left + box[3]), sector.mask)


def _fitted(preprocessing: Preprocessing, box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    top, left, bottom, right = box
    scale = min(preprocessing.size[0] / (bottom - top), preprocessing.size[1] / (right - left))
    start, stop = [], []
    for size, low, high in zip(preprocessing.size, (top, left), (bottom, right), strict=True):
        length = max(1, round(scale * (high - low)))  # of the frame within the input
        before, pixel = (size - length) // 2, (high - low) / length
        start.append(low - before * pixel)
        stop.append(low + (size - before) * pixel)
    return start[0], start[1], stop[0], stop[1]


def _attention(recognizer: Recognizer, frame: Frame) -> Attention:
    preprocessing = recognizer.preprocessing
    [values] = recognizer.explain(preprocessing(frame.pixels, frame.region)[None])
    return Attention(
        values=values.round(3).tolist(), box=input_box(preprocessing, frame), outline=_outline(_sector(frame))
    )


def _outline(sector: Sector) -> list[tuple[float, float]]:
    """Corners of a sector: along its top, which a curved probe hollows, and back along its bottom."""
    top, left, _, _ = sector.box
    columns = np.flatnonzero(sector.mask.any(axis=0))
    columns = columns[np.unique(np.linspace(0, len(columns) - 1, _CORNERS).round().astype(int))]
    mask = sector.mask[:, columns]  # each column is one run: the sector is convex but for its hollow
    first, last = mask.argmax(axis=0), mask.shape[0] - mask[::-1].argmax(axis=0)
    x = np.where(columns == columns[-1], columns + 1, columns)  # the edge of the last column is right of it
    upper = [(float(left + column), float(top + y)) for column, y in zip(x, first, strict=True)]
    return upper + [(float(left + column), float(top + y)) for column, y in zip(x[::-1], last[::-1], strict=True)]
