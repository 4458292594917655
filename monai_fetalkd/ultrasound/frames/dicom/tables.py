"""Lookup tables of DICOM: of grey levels (modality and VOI LUT) and of colours (palette)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from ..frame import FrameError
from .elements import numbers, words

__all__ = ["Table", "apply_palette"]

_LARGEST = 65536
_DISCRETE, _LINEAR, _INDIRECT = range(3)


class Table:
    """A table that gives each value another.

    Attributes:
        white: the greatest entry that there can be.

    Args:
        entries: the table.
        first: the value that gets the first entry; those below get it too, and those above the last get the last.
        bits: how many bits of an entry count.
    """

    def __init__(self, entries: np.ndarray, first: int, bits: int) -> None:
        self._entries, self._first = entries, first
        used = int(entries.max()).bit_length()
        # many a table of 16 bits, which its entries take in the file, uses but 12 of them
        self.white = 2 ** (bits if used <= bits <= 8 else max(used, 1)) - 1

    @classmethod
    def read(cls, item: Dataset, descriptor: str = "LUTDescriptor", data: str = "LUTData") -> Table | None:
        """The table in these elements of a dataset; None where it cannot be used."""
        described, packed = numbers(item, descriptor), words(item, data)
        if len(described) != 3 or len(packed) < 2:
            return None
        size, first, bits = int(described[0]) or _LARGEST, int(described[1]), int(described[2])
        segmented = data.startswith("Segmented")
        # entries of 8 bits are packed, or take a word each
        kind = np.dtype("u1" if bits <= 8 and (segmented or len(packed) < 2 * size) else "<u2")
        entries = np.frombuffer(packed, kind, len(packed) // kind.itemsize)
        if segmented:
            entries = _expand(entries)
        if not entries.any():
            return None
        return cls(entries[:size], first, bits)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map values of any shape."""
        # the first value is signed where the pixels are, though it is often written as if it were not
        first = self._first - _LARGEST if self._first >= _LARGEST // 2 and values.min() < 0 else self._first
        return self._entries[np.clip(values.astype(np.int64) - first, 0, len(self._entries) - 1)]


def apply_palette(path: str, values: np.ndarray, elements: Dataset) -> np.ndarray:
    """The colours of a picture of PALETTE COLOR, as uint8.

    Raises:
        FrameError: when the palette is missing or cannot be used.

    References:
        DICOM PS3.3, section C.7.6.3.1.5 and C.7.9.
    """
    channels = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        table = Table.read(elements, f"{name}Descriptor", f"{name}Data") or Table.read(
            elements, f"{name}Descriptor", f"Segmented{name}Data"
        )
        if table is None:
            raise FrameError(path, f"its pixels are of PALETTE COLOR, but its {name} is missing or cannot be used")
        channels.append(table)
    colours = np.stack([table(values) for table in channels], axis=-1)
    # 8 bits that were shifted into 16, or repeated there, come back; some writers leave them where they were
    wide = max(table.white for table in channels) > 255
    return (colours >> 8 if wide else colours).astype(np.uint8)


def _expand(data: np.ndarray) -> np.ndarray:
    """The entries of a segmented table, never more than the largest table has."""
    entries: list[int] = []

    def run(position: int, segments: int, nested: bool = False) -> None:
        while segments and position + 2 <= len(data) and len(entries) < _LARGEST:
            kind, length = int(data[position]), int(data[position + 1])
            position, segments = position + 2, segments - 1
            if length == 0 or kind > _INDIRECT or (nested and kind == _INDIRECT):
                raise ValueError("there is no such segment")
            if kind == _DISCRETE:
                entries.extend(data[position : position + length].tolist())
                position += length
            elif kind == _LINEAR:
                ends = entries[-1], int(data[position])
                entries.extend(np.around(np.linspace(*ends, length + 1)[1:]).astype(int).tolist())
                position += 1
            else:  # segments that stand elsewhere once more; the place is told in bytes
                size = 4 // data.itemsize
                place = int.from_bytes(data[position : position + size].tobytes(), "little")
                run(place // data.itemsize, length, nested=True)
                position += size

    run(0, len(data))
    return np.array(entries[:_LARGEST], data.dtype)
