"""Values of DICOM elements, taken as far as they can be used.

pydicom refuses a value that breaks a rule of its representation, and makes an object of some 200 bytes of each number.
Here a value that cannot be used is an empty one, since it is no reason to lose the pixels.
"""

from __future__ import annotations

import math
import struct
from contextlib import suppress

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

__all__ = ["LONG_LENGTHS", "functional_groups", "items", "number", "numbers", "text", "words"]

LONG_LENGTHS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
"""The value representations with four bytes of length in a file that tells them."""

_LONGEST = 2**18  # bytes: 15,000 times of frames, or two tables of the largest size
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "AT": "HH", "OW": "H"}


def numbers(elements: Dataset, keyword: str) -> list[float]:
    """The values of an element, not a number (NaN) for each that is none.

    Args:
        elements: a dataset that was read from a file.
        keyword: name of the element.

    Returns:
        Its values; none where it is absent, empty, or longer than it can sensibly be.
    """
    element = _raw(elements, keyword)
    if element is None:
        return []
    value, vr = element.value, element.VR
    if vr in (None, "UN"):
        vr = dictionary_VR(element.tag)
    if vr in ("DS", "IS"):
        parts = value.decode("ascii", "replace").split("\\")
        return [_float(part) for part in parts] if value.strip(b" \0") else []
    kind = _BINARY[vr.split(" or ")[0]]
    size = struct.calcsize(f"={kind}")
    return list(struct.unpack(f"{_order(element)}{len(value) // size * kind}", value[: len(value) // size * size]))


def number(elements: Dataset, keyword: str) -> float | None:
    """The first value of an element, None where that is no finite number."""
    value = next(iter(numbers(elements, keyword)), math.nan)
    return value if math.isfinite(value) else None


def text(elements: Dataset, keyword: str) -> str:
    """The first value of an element of text, in capitals and without padding; empty where there is none."""
    element = _raw(elements, keyword)
    return "" if element is None else element.value.decode("ascii", "replace").split("\\")[0].strip(" \0").upper()


def words(elements: Dataset, keyword: str) -> bytes:
    """The words of 16 bits of an element, little endian whatever the file is; empty where there are none."""
    element = _raw(elements, keyword)
    if element is None:
        return b""
    value = element.value
    if element.is_little_endian or element.VR == "OB":
        return value
    swapped = bytearray(len(value) // 2 * 2)
    swapped[::2], swapped[1::2] = value[1::2], value[: len(swapped) : 2]
    return bytes(swapped)


def items(elements: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent or no sequence."""
    with suppress(Exception):
        return list(elements.get(keyword) or [])
    return []


def functional_groups(elements: Dataset, macro: str, frame: int) -> list[Dataset]:
    """Where to look for the attributes of a frame, the nearest first.

    Args:
        elements: the header of the file.
        macro: name of the sequence that holds the attributes in an enhanced DICOM file.
        frame: number of the frame.

    Returns:
        The items of the frame, those that all frames share, and the header itself.

    References:
        DICOM PS3.3, section C.7.6.16 (multi-frame functional groups).
    """
    own = items(elements, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    shared = items(elements, "SharedFunctionalGroupsSequence")[:1]
    return [item for group in (*own, *shared) for item in items(group, macro)[:1]] + [elements]


def _raw(elements: Dataset, keyword: str) -> RawDataElement | None:
    element = elements.get_item(keyword, keep_deferred=True)
    usable = isinstance(element, RawDataElement) and isinstance(element.value, bytes)
    return element if usable and len(element.value) <= _LONGEST else None


def _order(element: RawDataElement) -> str:
    return "<" if element.is_little_endian else ">"


def _float(part: str) -> float:
    with suppress(ValueError):
        return float(part.strip(" \0"))
    return math.nan
