"""The pages of a TIFF file and the kinds of their samples, which Pillow passes on as they are stored."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    ImageFileDirectory_v2,
)

from .frame import FrameError
from .levels import finite_range, grey_levels, natural_range

__all__ = ["find_pages", "grey_samples", "open_page"]

_MOST_PAGES = 100_000
_WHITE_IS_ZERO = 0
_MIN_SAMPLE_VALUE, _MAX_SAMPLE_VALUE = 280, 281
_UNSIGNED, _SIGNED, _FRACTION = 1, 2, 3
_FORMATS = {_UNSIGNED: "unsigned integers", _SIGNED: "signed integers", _FRACTION: "floating-point numbers"}


def find_pages(path: str, stream: BinaryIO) -> list[int]:
    """The positions of all pages, in one walk along their chain: Pillow's takes quadratic time.

    Raises:
        FrameError: when there are too many.
    """
    stream.seek(0)
    order, big, position = _header(stream.read(16))
    # count of entries and position of the next page, their lengths, and the length of an entry
    count_kind, next_kind, entry = ("Q", "Q", 20) if big else ("H", "L", 12)
    pages: dict[int, None] = {}  # in order
    while position and position not in pages:
        stream.seek(position)
        found = stream.read(struct.calcsize(f"={count_kind}"))
        if len(found) < struct.calcsize(f"={count_kind}"):
            break
        pages[position] = None
        if len(pages) > _MOST_PAGES:
            raise FrameError(path, f"it has more than {_MOST_PAGES:,} pages")
        (entries,) = struct.unpack(order + count_kind, found)
        stream.seek(position + len(found) + entries * entry)
        rest = stream.read(struct.calcsize(f"={next_kind}"))
        position = struct.unpack(order + next_kind, rest)[0] if len(rest) == struct.calcsize(f"={next_kind}") else 0
    return list(pages)


def open_page(path: str, stream: BinaryIO, position: int) -> Image.Image:
    """One page, without a walk to it.

    Raises:
        FrameError: when its samples are of a kind that is not supported.
    """
    page = _FromPage(stream, position)
    try:
        return Image.open(page, formats=["TIFF"])
    except Image.UnidentifiedImageError:
        # Pillow does not say whether it does not know the samples or cannot read the tags
        page.seek(0)
        tags = ImageFileDirectory_v2(page.read(16 if page.is_big else 8))
        page.seek(position)
        tags.load(page)  # type: ignore[arg-type]
        if not {IMAGEWIDTH, IMAGELENGTH, PHOTOMETRIC_INTERPRETATION} <= set(tags):
            raise
        bits, kind = _samples(tags)
        raise FrameError(path, f"TIFF of {_FORMATS.get(kind, 'numbers')} of {bits} bits is not supported") from None


def grey_samples(path: str, image: Image.Image) -> np.ndarray | None:
    """Grey levels of a page of one sample a pixel that is not of 8 unsigned bits; None for all others.

    Integers are stretched by MinSampleValue and MaxSampleValue where the page tells them and they hold, else by their
    bits, whatever values occur.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, kind = _samples(tags)
    if image.mode == "L" and kind == _SIGNED:
        return grey_levels(path, np.asarray(image).view(np.int8), -128, 127)
    if not image.mode.startswith(("I", "F")):
        return None
    values = np.asarray(image)
    if kind == _FRACTION:
        darkest, brightest = finite_range(values) or (0, 1)
        low, high = natural_range(darkest, brightest, fractional=True)
    elif kind == _SIGNED:
        low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    else:
        low, high = 0, 2.0**bits - 1
        values = values.view(np.uint32) if bits == 32 else values  # Pillow has no such mode
    if kind != _FRACTION:
        low, high = _told_range(tags, values, low, high)
    levels = grey_levels(path, values, low, high)
    return 255 - levels if tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else levels


class _FromPage:
    """A TIFF file whose header points at another page than the first."""

    def __init__(self, stream: BinaryIO, position: int) -> None:
        stream.seek(0)
        head = stream.read(16)
        order, self.is_big, _ = _header(head)
        self._head = (
            head[:8] + struct.pack(f"{order}Q", position)
            if self.is_big
            else head[:4] + struct.pack(f"{order}L", position)
        )
        self._stream = stream
        stream.seek(0)

    def read(self, size: int = -1) -> bytes:
        start = self._stream.tell()
        data = self._stream.read(size)
        return self._head[start : start + len(data)] + data[max(0, len(self._head) - start) :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _header(head: bytes) -> tuple[str, bool, int]:
    order = "<" if head.startswith(b"II") else ">"
    big = struct.unpack_from(f"{order}H", head, 2)[0] == 43
    return (
        order,
        big,
        struct.unpack_from(f"{order}Q", head, 8)[0] if big else struct.unpack_from(f"{order}L", head, 4)[0],
    )


def _told_range(tags: Any, values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """12 bits in 16 are told by MaxSampleValue alone. It need not be true of the page: then the bits count."""
    told = tags.get(_MIN_SAMPLE_VALUE, low), tags.get(_MAX_SAMPLE_VALUE, high)
    least, most = (value[0] if isinstance(value, tuple) else value for value in told)
    return (least, most) if low <= least <= values.min() and values.max() <= most <= high else (low, high)


def _samples(tags: Any) -> tuple[int, int]:
    bits, kind = tags.get(BITSPERSAMPLE, 1), tags.get(SAMPLEFORMAT, _UNSIGNED)
    return (bits[0] if isinstance(bits, tuple) else bits), (kind[0] if isinstance(kind, tuple) else kind)
