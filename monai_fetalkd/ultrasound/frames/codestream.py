"""What a JPEG, JPEG-LS or JPEG 2000 codestream tells of itself before it is decoded."""

from __future__ import annotations

import struct
from enum import Enum
from typing import NamedTuple

__all__ = ["Codestream", "Coding", "inspect_codestream"]

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"  # of all of them
_SIZE_MARKERS = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # those of the group that do not tell the size
_LOSSLESS, _JPEG_LS = {0xC3, 0xC7, 0xCB, 0xCF}, 0xF7
_HUFFMAN_TABLES, _SCAN, _JFIF, _ADOBE = 0xC4, 0xDA, 0xE0, 0xEE
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_CODING_STYLE, _TILE_PART = 0x52, 0x90


class Coding(Enum):
    """A way of compression."""

    JPEG = "JPEG"
    LOSSLESS = "lossless JPEG"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"


class Codestream(NamedTuple):
    """A compressed frame and what its own header tells."""

    data: bytes
    """The codestream from its first to its last byte, without padding or file format around it."""
    coding: Coding
    rows: int
    columns: int
    components: int
    bits: int
    parts: int
    """Scans of a JPEG, tiles of a JPEG 2000: how often a decoder goes through the frame, or what it keeps."""
    transformed: bool | None = None
    """Whether the components are luma and chroma (JPEG), or were made so and will be undone (JPEG 2000). None where the
    codestream leaves it open."""
    converts: bool = False
    """Whether libjpeg would convert the components to RGB."""
    has_tables: bool = True
    """Whether a JPEG holds its Huffman tables: GDCM ends the process where it does not."""


def inspect_codestream(data: bytes) -> Codestream:
    """Read the size of a compressed frame, and what became of its colours, from its own header.

    Args:
        data: the codestream, with whatever padding around it.

    Returns:
        What it tells.

    Raises:
        ValueError: when it is neither JPEG, JPEG-LS nor JPEG 2000, is damaged, or lacks its end.

    References:
        ITU-T T.81 (JPEG), annex B; T.87 (JPEG-LS), annex C; T.800 (JPEG 2000), annex A; T.871 (JFIF).
    """
    if (start := data[:4096].find(_JPEG_2000)) >= 0:
        return _jpeg_2000(data[start:])
    if (start := data[:64].find(_JPEG)) >= 0:
        return _jpeg(data[start:])
    raise ValueError("it is no codestream")


def _jpeg(data: bytes) -> Codestream:
    size: tuple[int, int, int, int] | None = None
    marker_of_size, identifiers, factors = 0, b"", b""
    has_tables = jfif = False
    adobe: int | None = None
    position = 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker = data[position + 1]
        if marker in (0xFF, 0x00) or marker in _STANDALONE:  # fill bytes, and what needs no length
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position + 4 : position + 2 + length]
        if marker in _SIZE_MARKERS and size is None:
            bits, rows, columns, components = struct.unpack_from(">BHHB", segment)
            size, marker_of_size = (rows, columns, components, bits), marker
            identifiers, factors = segment[6 : 6 + 3 * components : 3], segment[7 : 6 + 3 * components : 3]
        elif marker == _HUFFMAN_TABLES:
            has_tables = True
        elif marker == _JFIF and segment.startswith(b"JFIF"):
            jfif = True
        elif marker == _ADOBE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]
        elif marker == _SCAN:
            break
        position += 2 + length
    else:
        raise ValueError("the codestream holds no scan")
    end = data.rfind(_END)
    if size is None or end < position:
        raise ValueError("the codestream is cut short")
    lossless = marker_of_size in _LOSSLESS
    coding = Coding.JPEG_LS if marker_of_size == _JPEG_LS else Coding.LOSSLESS if lossless else Coding.JPEG
    named = identifiers in (b"RGB", b"rgb")
    subsampled = len(set(factors)) > 1
    transformed = (
        False if named else True if jfif else adobe != 0 if adobe is not None else True if subsampled else None
    )
    unmarked = identifiers != b"RGB" and not (lossless and identifiers == b"\1\2\3")
    return Codestream(
        data[: end + 2],
        coding,
        *size,
        parts=data.count(bytes([0xFF, _SCAN]), position),
        transformed=transformed,
        converts=size[2] == 3 and (jfif or (adobe != 0 if adobe is not None else unmarked)),
        has_tables=has_tables or coding is Coding.JPEG_LS,
    )


def _jpeg_2000(data: bytes) -> Codestream:
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">8I", data, 8)
    components, depth = struct.unpack_from(">HB", data, 40)
    transformed = False
    position = 2
    while data[position : position + 2] != bytes([0xFF, _TILE_PART]):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == 0xFF00 | _CODING_STYLE:
            transformed = data[position + 8] == 1
        position += 2 + length
    tiles = -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height)
    return Codestream(
        data[: _end_of_tiles(data, position)] + _END,
        Coding.JPEG_2000,
        height - top,
        width - left,
        components,
        (depth & 0x7F) + 1,
        tiles,
        transformed,
    )


def _end_of_tiles(data: bytes, position: int) -> int:
    """Where the last tile-part ends: some writers leave out the marker behind it, and the length of the last."""
    while data[position : position + 2] == bytes([0xFF, _TILE_PART]):
        (length,) = struct.unpack_from(">I", data, position + 6)
        if length == 0:
            position = data.rfind(_END)
            if position < 0:
                raise ValueError("the codestream is cut short")
            return position
        position += length
    if position > len(data):
        raise ValueError("the codestream is cut short")
    return position
