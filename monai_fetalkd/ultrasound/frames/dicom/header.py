"""The elements of a DICOM header: which are read, how many and how long they may be, and where the pixels begin."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from typing import BinaryIO, NamedTuple

from pydicom import uid
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial, read_preamble
from pydicom.tag import BaseTag, Tag

from ..frame import FrameError, inflated_limit
from ..guard import guarded, opened
from ..kinds import HEAD, sniff
from .elements import LONG_LENGTHS

__all__ = ["UNDEFINED_LENGTH", "Header", "PixelElement", "machine", "patient_id", "read_header"]

UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_MOST_ELEMENTS, _MOST_ITEMS = 200_000, 50_000  # in a sequence; pydicom needs a kilobyte or more for each item


class PixelElement(NamedTuple):
    """Where the pixels are in a file."""

    keyword: str
    vr: str
    length: int
    start: int


class Header(NamedTuple):
    """The elements that were asked for, and the file they come from, inflated where it was deflated."""

    elements: Dataset
    stream: BinaryIO
    syntax: uid.UID
    pixels: PixelElement | None


def read_header(path: str, stream: BinaryIO, keywords: list[str]) -> Header:
    """Read some elements of a DICOM file.

    Args:
        path: the file, for errors.
        stream: the same file, open at its start.
        keywords: names of the elements.

    Returns:
        Those of them that the file holds, as they are written: nothing is converted yet.

    Raises:
        FrameError: when it inflates to too much, or its sequences hold too many elements.
    """
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=_after_meta, specific_tags=[Tag("TransferSyntaxUID")])
    if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
        # pydicom would inflate without a limit; what comes out is a file without meta information
        stream = _inflate(path, stream)
    stream.seek(0)
    found: list[PixelElement] = []
    wanted = {Tag(keyword) for keyword in keywords}
    sequences = {tag for tag in wanted if dictionary_VR(tag) == "SQ"}

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in _PIXELS:
            found.append(PixelElement(_PIXELS[tag], vr or "OW", length, stream.tell()))
            return True
        if length == UNDEFINED_LENGTH or tag in sequences:
            _check_sequence(path, stream, length)
        return False

    elements = read_partial(stream, stop_when=at_pixels, force=True, specific_tags=list(wanted))
    return Header(elements, stream, _transfer_syntax(elements), found[0] if found else None)


def _after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _inflate(path: str, stream: BinaryIO) -> BinaryIO:
    packed = stream.read()
    limit = inflated_limit(len(packed))
    data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit)
    if len(data) == limit:
        raise FrameError(path, f"it inflates to more than {limit:,} bytes")
    return BytesIO(data)


def _transfer_syntax(elements: Dataset) -> uid.UID:
    """As told by the meta information, or for a file without it as pydicom found its elements to be written."""
    if told := elements.file_meta.get("TransferSyntaxUID"):
        return uid.UID(told)
    implicit, little_endian = elements.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian


def _check_sequence(path: str, stream: BinaryIO, length: int) -> None:
    """Count the elements of a sequence, whatever they are nested in, before pydicom makes objects of them."""
    start = stream.tell()
    end = start + length if length != UNDEFINED_LENGTH else None
    order = ">" if _is_big_endian(stream) else "<"
    elements, inner, depth = 0, 0, 1
    while depth and (end is None or stream.tell() < end) and len(head := stream.read(8)) == 8:
        group, element, size = struct.unpack(f"{order}HHL", head)
        elements, inner = elements + 1, inner + ((group, element) == (0xFFFE, 0xE000))
        if elements > _MOST_ELEMENTS or inner > _MOST_ITEMS:
            raise FrameError(path, f"its header holds a sequence of more than {_MOST_ITEMS:,} items or their elements")
        if group == 0xFFFE:
            depth += {0xE000: size == UNDEFINED_LENGTH, 0xE00D: -1, 0xE0DD: -1}.get(element, 0)
            continue
        vr = head[4:6]
        if vr in LONG_LENGTHS:
            (size,) = struct.unpack(f"{order}L", stream.read(4))
        elif vr.isalpha() and vr.isupper():
            (size,) = struct.unpack(f"{order}H", head[6:])
        if size == UNDEFINED_LENGTH:
            depth += 1
        elif vr != b"SQ":
            stream.seek(size, os.SEEK_CUR)
    stream.seek(start)


def _is_big_endian(stream: BinaryIO) -> bool:
    tag = stream.read(2)
    stream.seek(-len(tag), os.SEEK_CUR)
    return tag == b"\xff\xfe"


def patient_id(path: str | os.PathLike[str]) -> str | None:
    """The patient's number in the header of a DICOM file: replace it by a hash at once, and never show it.

    Args:
        path: any file.

    Returns:
        The number, or None where the file is not DICOM or holds none.

    Raises:
        FrameError: when the header is damaged.
        FileNotFoundError: when there is no such file.
    """
    return _value(path, "PatientID")


def machine(path: str | os.PathLike[str]) -> str | None:
    """The model of the ultrasound machine in the header of a DICOM file.

    Args:
        path: any file.

    Returns:
        The name that its maker gave it, or None where the file is not DICOM or holds none.

    Raises:
        FrameError: when the header is damaged.
        FileNotFoundError: when there is no such file.
    """
    return _value(path, "ManufacturerModelName")


def _value(path: str | os.PathLike[str], keyword: str) -> str | None:
    path = os.fspath(path)
    with opened(path) as stream, guarded(path, "its DICOM header is damaged or cut short"):
        if sniff(stream.read(HEAD)) != "DICOM":
            return None
        stream.seek(0)
        header = read_header(path, stream, [keyword])
        return str(header.elements.get(keyword) or "").strip() or None
