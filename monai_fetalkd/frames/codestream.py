"""What a JPEG, JPEG-LS or JPEG 2000 codestream tells of itself before it is decoded."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["Codestream", "inspect_codestream"]

_JPEG = b"\xff\xd8"
_JPEG_FRAME_MARKERS = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # those of the group that do not tell the size
_JPEG_LS, _HUFFMAN_TABLES, _SCAN = 0xF7, 0xC4, 0xDA
_OTHER_SEGMENTS = {0xCC, 0xDB, 0xDD}  # arithmetic coding, quantisation tables, restart interval
_JPEG_2000 = b"\xff\x4f\xff\x51"  # start of the codestream, then the segment of its size
_END = b"\xff\xd9"


class Codestream(NamedTuple):
    """The size of a compressed frame."""

    rows: int
    columns: int
    components: int
    bits: int


def inspect_codestream(data: bytes) -> Codestream:
    """Read the size of a compressed frame from its own header.

    Args:
        data: the codestream, with nothing but padding behind it.

    Returns:
        Its size.

    Raises:
        ValueError: when it is neither JPEG, JPEG-LS nor JPEG 2000, is damaged, or lacks its end.

    References:
        ITU-T T.81 (JPEG), annex B; T.87 (JPEG-LS), annex C; T.800 (JPEG 2000), annex A.
    """
    if _END not in data[-64:]:
        raise ValueError("the codestream is cut short")
    if (start := data.find(_JPEG_2000)) >= 0:
        x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
        components, depth = struct.unpack_from(">HB", data, start + 40)
        return Codestream(y1 - y0, x1 - x0, components, (depth & 0x7F) + 1)
    found, has_tables = None, False
    position = 2 if data.startswith(_JPEG) else len(data)
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        if marker in _JPEG_FRAME_MARKERS and found is None:
            bits, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
            found, has_tables = Codestream(rows, columns, components, bits), has_tables or marker == _JPEG_LS
        elif marker == _HUFFMAN_TABLES:
            has_tables = True
        elif marker == _SCAN:
            break
        elif not (0xE0 <= marker <= 0xFE or marker in _OTHER_SEGMENTS):
            raise ValueError("a segment of the codestream is damaged")
        position += 2 + length
    if found and has_tables:  # GDCM ends the process where there are none
        return found
    raise ValueError("it is no codestream")
