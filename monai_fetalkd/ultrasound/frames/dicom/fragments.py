"""Where the compressed frames lie in the pixel data of a DICOM file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["ITEM", "Fragment", "locate_frames", "read_fragments"]

_MOST_FRAGMENTS = 500_000
ITEM = b"\xfe\xff\x00\xe0"
# JPEG and JPEG-LS, JPEG 2000, the same in a JP2 file
_BEGINNINGS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0c")


class Fragment(NamedTuple):
    """A piece of a compressed frame."""

    position: int
    length: int
    begins_frame: bool


def locate_frames(stream: BinaryIO, start: int, count: int) -> list[list[Fragment]]:
    """The fragments of each frame.

    The data decides: a frame begins where a codestream does, or with each fragment where there are as many of both. The
    Basic Offset Table is a help that writers get wrong. It is asked for what tells neither, and the Extended Offset
    Table not at all, as it is allowed for one fragment a frame only.

    Args:
        stream: the file.
        start: position of the value of the pixel data.
        count: how many frames its header tells of.

    Returns:
        A list for each frame; for fewer or more frames than ``count`` where the data holds such.

    Raises:
        ValueError: when the frames cannot be told apart, or there are no fragments.

    References:
        DICOM PS3.5, section A.4.
    """
    table: list[int] = []
    fragments: list[Fragment] = []
    first = start
    for place, fragment in enumerate(_items(stream, start)):
        if place == 0 and not fragment.begins_frame:
            stream.seek(fragment.position)
            table = list(struct.unpack(f"<{fragment.length // 4}L", stream.read(fragment.length // 4 * 4)))
            first = fragment.position + fragment.length
        elif fragment.length:
            fragments.append(fragment)
        if len(fragments) > _MOST_FRAGMENTS:
            raise ValueError("too many fragments")
    if not fragments:
        raise ValueError("no fragments")
    begun = _split(fragments, {fragment.position for fragment in fragments if fragment.begins_frame})
    if len(begun) == count:
        return begun
    if len(fragments) == count:
        return [[fragment] for fragment in fragments]
    if count == 1:
        return [fragments]
    # an offset points at the header of an item, which has 8 bytes
    told = _split(fragments, {first + offset + 8 for offset in table})
    if len(told) == count == len(table):
        return told
    if any(fragment.begins_frame for fragment in fragments):
        return begun
    raise ValueError("the frames cannot be told apart")


def read_fragments(stream: BinaryIO, fragments: list[Fragment]) -> bytes:
    """The compressed frame that consists of these fragments."""
    parts = []
    for fragment in fragments:
        stream.seek(fragment.position)
        parts.append(stream.read(fragment.length))
    return b"".join(parts)


def _items(stream: BinaryIO, start: int) -> Iterator[Fragment]:
    """The items up to the delimiter, or to where the file is cut short."""
    position = start
    stream.seek(position)
    while len(head := stream.read(12)) >= 8 and head.startswith(ITEM):
        (length,) = struct.unpack_from("<L", head, 4)
        position += 8
        yield Fragment(position, length, head[8:].startswith(_BEGINNINGS) and length >= 4)
        position += length
        stream.seek(position)


def _split(fragments: list[Fragment], beginnings: set[int]) -> list[list[Fragment]]:
    groups: list[list[Fragment]] = []
    for fragment in fragments:
        if fragment.position in beginnings or not groups:
            groups.append([])
        groups[-1].append(fragment)
    return groups
