"""MetaImage, ITK's own format: ``.mha``, or ``.mhd`` with its voxels in a file beside it."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .frame import MAX_BYTES, FrameError, inflated_limit
from .guard import guarded
from .volumes import Layout, VolumeSource, read_voxels

__all__ = ["open_metaimage"]

_LONGEST_HEADER = 2**24  # trackers write some lines for each frame
_DIRECTIONS = ("TransformMatrix", "Orientation", "Rotation")
_FIELDS = {
    *("DimSize", "ElementNumberOfChannels", "ElementType", "BinaryData", "BinaryDataByteOrderMSB", "CompressedData"),
    *("ElementByteOrderMSB", "ElementSpacing", "ElementSize", "HeaderSize", "ElementDataFile", *_DIRECTIONS),
}
_TIMESTAMP = re.compile(r"Seq_Frame(\d+)_Timestamp")  # seconds, of the PLUS toolkit
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def open_metaimage(path: str, stream: BinaryIO) -> VolumeSource:
    """The frames of a MetaImage file.

    Args:
        path: the file.
        stream: the same file, open at its start.

    Returns:
        Its frames.

    Raises:
        FrameError: when the header is damaged, asks for what is not supported, or names a file outside its folder.

    References:
        The MetaImage format: https://itk.org/Wiki/ITK/MetaIO/Documentation
    """
    with guarded(path, "its MetaImage header is damaged or cut short"):
        header, times = _header(path, stream)
        shape = tuple(int(size) for size in header["DimSize"].split())
        channels = int(header.get("ElementNumberOfChannels", 1))
        if len(shape) < 2 or min(shape) < 1:
            raise FrameError(path, f"it holds no frame, its size is {shape}")
        if channels not in (1, 3) or header["ElementType"] not in _TYPES or not _true(header, "BinaryData", True):
            raise FrameError(path, "its voxels are neither binary grey levels nor binary RGB")
        big_endian = _true(header, "BinaryDataByteOrderMSB") or _true(header, "ElementByteOrderMSB")
        dtype = np.dtype(_TYPES[header["ElementType"]]).newbyteorder(">" if big_endian else "<")
        layout = Layout(shape, dtype, channels, _directions(header, len(shape)), _spacing(header))
        start = stream.tell() if header["ElementDataFile"] == "LOCAL" else 0

    def load(file: BinaryIO) -> np.ndarray:
        skipped = int(header.get("HeaderSize", 0))
        compressed = _true(header, "CompressedData")
        if skipped < 0 and not compressed:  # -1: whatever stands before them, the voxels are the end of the file
            skipped = file.seek(0, os.SEEK_END) - int(np.prod(shape, dtype=object)) * channels * dtype.itemsize
        else:
            skipped += start
        file.seek(max(skipped, start))
        read = _inflating(file) if compressed else file.read
        limit = inflated_limit(os.fstat(file.fileno()).st_size) if compressed else MAX_BYTES
        voxels = read_voxels(path, read, (channels, *shape), dtype, limit)
        return voxels[0] if channels == 1 else np.moveaxis(voxels, 0, -1)

    def time(number: int) -> float | None:
        return times[number] - times[0] if 0 in times and number in times else None

    return VolumeSource(path, layout, lambda: _voxel_file(path, header["ElementDataFile"], stream), load, time)


def _header(path: str, stream: BinaryIO) -> tuple[dict[str, str], dict[int, float]]:
    """The fields up to ``ElementDataFile``, which is the last, and the times of frames; leaves the stream behind it."""
    header: dict[str, str] = {}
    times: dict[int, float] = {}
    while "ElementDataFile" not in header:
        line = stream.readline(_LONGEST_HEADER)
        if not line or stream.tell() > _LONGEST_HEADER:
            raise FrameError(
                path, f"its MetaImage header has no ElementDataFile in its first {_LONGEST_HEADER:,} bytes"
            )
        name, value = (part.strip() for part in line.decode("latin-1").partition("=")[::2])
        if name in _FIELDS:
            header[name] = value
        elif stamp := _TIMESTAMP.fullmatch(name):
            with suppress(ValueError):
                times[int(stamp[1])] = 1000 * float(value)
    return header, times


def _directions(header: dict[str, str], axes: int) -> tuple[tuple[float, ...], ...]:
    directions = np.eye(3)
    told = next((header[name] for name in _DIRECTIONS if name in header), None)
    if told is not None:
        matrix = np.array(told.split(), dtype=np.float64).reshape(axes, axes)
        inner = min(axes, 3)
        directions[:inner, :inner] = matrix[:inner, :inner].T  # the file holds one direction after the other
    return tuple(map(tuple, directions.tolist()))


def _spacing(header: dict[str, str]) -> tuple[float, float]:
    with suppress(ValueError):
        width, height, *_ = map(float, header.get("ElementSpacing", header.get("ElementSize", "")).split())
        if 0 < width < np.inf and 0 < height < np.inf:
            return width, height
    return 1.0, 1.0


def _true(header: dict[str, str], name: str, default: bool = False) -> bool:
    return header.get(name, str(default)).lower() in ("true", "1")


def _inflating(file: BinaryIO) -> Callable[[int], bytes]:
    """Reads what zlib compressed, piece by piece."""
    inflater = zlib.decompressobj()

    def read(size: int) -> bytes:
        data = b""
        while not data and not inflater.eof:
            packed = inflater.unconsumed_tail or file.read(size)
            if not packed:
                break
            data = inflater.decompress(packed, size)
        return data

    return read


def _voxel_file(path: str, name: str, stream: BinaryIO) -> AbstractContextManager[BinaryIO]:
    if name == "LOCAL":
        return nullcontext(stream)
    if os.path.basename(name) != name or name in ("", ".", "..", "LIST"):
        raise FrameError(path, f"its voxels must lie in one file beside it, not in '{name}'")
    voxels = Path(path).with_name(name)
    if not voxels.is_file():
        raise FrameError(path, f"the file of its voxels, '{name}', is missing")
    return voxels.open("rb")
