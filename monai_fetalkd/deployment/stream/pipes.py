"""Frames from a byte stream: bare grey levels, or PNG and JPEG files one behind the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from io import BytesIO, RawIOBase

import numpy as np

from monai_fetalkd.ultrasound.frames import Frame, FrameError
from monai_fetalkd.ultrasound.frames.frame import check_size
from monai_fetalkd.ultrasound.frames.kinds import sniff
from monai_fetalkd.ultrasound.frames.levels import grey_levels
from monai_fetalkd.ultrasound.frames.pictures import PictureSource

from .arrivals import Arrival

__all__ = ["PIPE_SIZE", "iterate_pictures", "iterate_raw"]

PIPE_SIZE = 2**20
"""Bytes that a pipe may hold, and that are read at once: whoever is late gets many frames in one go."""

_LARGEST = 2**26  # bytes of a compressed frame; what is longer has lost its end

# the first and the last bytes of a file
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xae\x42\x60\x82"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_SCAN = 0xDA
# what stands between pictures: the headers that HTTP cameras send, and padding
_FILLING = bytes(range(0x20, 0x7F)) + b"\t\r\n\0\xff"


def iterate_raw(stream: RawIOBase, width: int, height: int) -> Iterator[Arrival]:
    """Frames of bare grey levels, one byte a pixel, row by row.

    Args:
        stream: where they come from.
        width: of each frame, in pixels.
        height: of each frame, in pixels.

    Yields:
        The frames, at the times of their coming; a last one that is cut short cannot be decoded.

    Raises:
        ValueError: when the size is absurd.
    """
    check_size("standard input", height, width)
    clock = _Clock()
    number = 0
    while data := _read_all(stream, width * height):
        yield Arrival(number, clock(), partial(_decode_raw, f"standard input, {number}", data, width, height))
        number += 1


def iterate_pictures(stream: RawIOBase) -> Iterator[Arrival]:
    """Frames as PNG or JPEG files, one behind the other.

    A file that is damaged costs no other: the next one is found by its first bytes. Text and padding between two files
    are no frame, so that those of an HTTP camera (``multipart/x-mixed-replace``) can be read as they come.

    Args:
        stream: where they come from.

    Yields:
        The frames, at the times of their coming; other bytes between them count as one that cannot be decoded.
    """
    clock = _Clock()
    pictures = (data for data in _split(stream) if data.translate(None, _FILLING))
    for number, data in enumerate(pictures):
        yield Arrival(number, clock(), partial(_decode_picture, f"standard input, {number}", data))


class _Clock:
    """Milliseconds since the first call."""

    def __init__(self) -> None:
        self._start: float | None = None

    def __call__(self) -> float:
        now = time.monotonic()
        self._start = now if self._start is None else self._start
        return 1000 * (now - self._start)


def _read_all(stream: RawIOBase, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (block := stream.read(size - len(data))):
        data += block
    return bytes(data)


def _decode_raw(name: str, data: bytes, width: int, height: int) -> Frame:
    if len(data) < width * height:
        raise FrameError(name, f"it is cut short: {len(data):,} of {width * height:,} bytes")
    return Frame(grey_levels(name, np.frombuffer(data, np.uint8).reshape(height, width)))


def _decode_picture(name: str, data: bytes) -> Frame:
    kind = sniff(data)
    if kind not in ("PNG", "JPEG"):
        raise FrameError(name, "it is neither PNG nor JPEG")
    return PictureSource(name, BytesIO(data), kind).frame(0)


def _split(stream: RawIOBase) -> Iterator[bytes]:
    buffer = bytearray()
    while block := stream.read(PIPE_SIZE):
        buffer += block
        while length := _first_length(buffer):
            yield bytes(buffer[:length])
            del buffer[:length]
        if len(buffer) > _LARGEST:
            yield bytes(buffer[: len(_PNG)])  # enough to be counted
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _first_length(buffer: bytearray) -> int:
    """Length of the first file in the buffer, or of what stands before it; 0 while its end has not come."""
    if buffer.startswith(_PNG):
        return _end(buffer, len(_PNG), _PNG, _PNG_END)
    if buffer.startswith(_JPEG):
        start = _scan(buffer)
        return _end(buffer, start, _JPEG, _JPEG_END) if start else 0
    return min((place for start in (_PNG, _JPEG) if (place := buffer.find(start)) > 0), default=0)


def _end(buffer: bytearray, start: int, first: bytes, last: bytes) -> int:
    """Place behind the last bytes of a file, or before the next file when it was cut short."""
    end = buffer.find(last, start)
    following = buffer.find(first, start, len(buffer) if end < 0 else end + len(first))
    return following if following >= 0 else end + len(last) if end >= 0 else 0


def _scan(buffer: bytearray) -> int:
    """Where the pixels of a JPEG file begin, 0 while they have not come.

    The segments before them are stepped over, as one may hold a preview: a JPEG file with an end of its own.
    """
    position = 2
    while position + 4 <= len(buffer):
        if buffer[position] != 0xFF:
            return 2  # damaged: there is nothing to step over
        if buffer[position + 1] == _SCAN:
            return position
        position += 2 + int.from_bytes(buffer[position + 2 : position + 4])
    return 0
