"""Rows of bytes in one memory-mapped file, which survive a kill and are shared by processes without locks."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

__all__ = ["TargetStore"]

_MANIFEST, _ROWS = "manifest.json", "rows.npy"


class TargetStore:
    """A table of rows on disk: one ``.npy`` file, read through a memory map, beside a manifest to read.

    Each row carries the CRC-32 of its bytes, which marks it as written and as whole: a row that nobody has written yet,
    or that a kill or a power cut has torn, reads as absent. So rows need no lock; processes that write the same row at
    the same time do no harm. The folder appears whole or not at all: it is made under a temporary name, and of several
    processes that make it at once the first wins and all use its folder. The file is sparse: it takes the space of what
    has been written, but is made only where all of it fits.

    ``numpy.load(folder / "rows.npy", mmap_mode="r")`` reads it without this package.

    Args:
        folder: folder of the store, made where it does not exist; it may be deleted at any time when nobody uses it.
        row: structured dtype of a row, whose first field is ``crc32``.
        count: number of rows.
        manifest: what the store was made for, kept as JSON for those who look.

    Raises:
        OSError: when the disk has no room for all rows.
        ValueError: when the folder holds something else.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "store"
        >>> store = TargetStore(folder, np.dtype([("crc32", "<u4"), ("value", "<f4")]), count=100, manifest={})
        >>> store.write(np.array([7]), np.array([[0, 0, 128, 63]], dtype=np.uint8))
        >>> rows, whole = store.read(np.array([6, 7]))
        >>> whole
        array([False,  True])
        >>> np.load(folder / "rows.npy", mmap_mode="r")["value"][7]
        np.float32(1.0)
    """

    def __init__(self, folder: str | os.PathLike[str], row: np.dtype, count: int, manifest: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            self._make(row, count, manifest)
        try:
            self._rows = np.load(self.folder / _ROWS, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"'{self.folder}' holds no store of targets, or a damaged one: delete it ({error})."
            ) from error
        if (self._rows.dtype, self._rows.shape) != (row, (count,)):
            raise ValueError(f"'{self.folder}' holds a store of other rows than asked for: delete it.")

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read rows.

        Args:
            indices: numbers of the rows, ``[N]``.

        Returns:
            Their bytes without the CRC-32, uint8 ``[N, bytes]``, and which of them are whole, bool ``[N]``; the bytes
            of a row that is not whole mean nothing.
        """
        rows = self._rows[indices]
        payload = rows.view(np.uint8).reshape(len(rows), -1)[:, 4:]
        whole = [zlib.crc32(data) == crc for data, crc in zip(payload, rows["crc32"].tolist(), strict=True)]
        return payload, np.array(whole, dtype=bool)

    def write(self, indices: np.ndarray, payload: np.ndarray) -> None:
        """Write rows.

        Args:
            indices: numbers of the rows, ``[N]``.
            payload: their bytes, uint8 ``[N, bytes]``.
        """
        # not through the map: on a disk that has become full, that would be a bus error without a word
        with open(self.folder / _ROWS, "r+b", buffering=0) as file:
            for index, data in zip(indices.tolist(), payload, strict=True):
                file.seek(self._rows.offset + index * self._rows.itemsize)
                file.write(zlib.crc32(data).to_bytes(4, "little") + data.tobytes())

    def _make(self, row: np.dtype, count: int, manifest: Mapping[str, Any]) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        size, free = row.itemsize * count, shutil.disk_usage(self.folder.parent).free
        if size > free:
            raise OSError(
                f"The teacher's targets need {size / 1e6:,.1f} MB in '{self.folder.parent}', which has "
                f"{free / 1e6:,.1f} MB free: ask for fewer views or give another cache_dir."
            )
        temporary = self.folder.with_name(f"{self.folder.name}.part-{secrets.token_hex(4)}")
        temporary.mkdir()
        try:
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=4))
            open_memmap(temporary / _ROWS, mode="w+", dtype=row, shape=(count,)).flush()
            for path in (temporary / _MANIFEST, temporary / _ROWS):
                with path.open("r+b") as file:  # Windows syncs only what is open for writing
                    os.fsync(file.fileno())
            temporary.rename(self.folder)
        except OSError:
            if not self.folder.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
