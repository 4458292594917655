"""MetaImage, ITK's own format: ``.mha``, or ``.mhd`` with its voxels in a file beside it."""

from __future__ import annotations

import os
import zlib
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .frame import FrameError
from .guard import guarded
from .volumes import VolumeSource, read_voxels

__all__ = ["open_metaimage"]

_LONGEST_HEADER = 65_536
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
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
        header = _header(stream)
        shape = tuple(int(size) for size in header["DimSize"].split())
        channels = int(header.get("ElementNumberOfChannels", 1))
        if len(shape) < 2 or min(shape) < 1:
            raise FrameError(path, f"it holds no frame, its size is {shape}")
        if channels not in (1, 3) or header["ElementType"] not in _TYPES or not _true(header, "BinaryData", True):
            raise FrameError(path, "its voxels are neither binary grey levels nor binary RGB")
        big_endian = _true(header, "BinaryDataByteOrderMSB") or _true(header, "ElementByteOrderMSB")
        dtype = np.dtype(_TYPES[header["ElementType"]]).newbyteorder(">" if big_endian else "<")
        directions = np.eye(3)
        if "TransformMatrix" in header:
            matrix = np.array(header["TransformMatrix"].split(), dtype=np.float64).reshape(len(shape), len(shape))
            inner = min(len(shape), 3)
            directions[:inner, :inner] = matrix[:inner, :inner].T  # the file holds one direction after the other

    def load() -> np.ndarray:
        stored = _voxel_file(path, header["ElementDataFile"], stream)
        compressed = _true(header, "CompressedData")
        read = partial(zlib.decompressobj().decompress, stored.read()) if compressed else stored.read
        voxels = read_voxels(path, read, (channels, *shape), dtype)
        return voxels[0] if channels == 1 else np.moveaxis(voxels, 0, -1)

    return VolumeSource(path, shape, channels == 3, directions, load)


def _header(stream: BinaryIO) -> dict[str, str]:
    """The fields up to ``ElementDataFile``, which is the last; leaves the stream at what follows."""
    header: dict[str, str] = {}
    while "ElementDataFile" not in header and stream.tell() < _LONGEST_HEADER:
        name, value = stream.readline(_LONGEST_HEADER).decode("ascii").split("=", 1)
        header[name.strip()] = value.strip()
    return header


def _true(header: dict[str, str], name: str, default: bool = False) -> bool:
    return header.get(name, str(default)).lower() == "true"


def _voxel_file(path: str, name: str, stream: BinaryIO) -> BinaryIO:
    if name == "LOCAL":
        return stream
    if os.path.basename(name) != name or name in ("", ".", "..", "LIST"):
        raise FrameError(path, f"its voxels must lie in one file beside it, not in '{name}'")
    voxels = Path(path).with_name(name)
    if not voxels.is_file():
        raise FrameError(path, f"the file of its voxels, '{name}', is missing")
    return BytesIO(voxels.read_bytes())
