"""What was decoded last of files that can only be decoded as a whole.

Each row of a datalist names one frame. Without this, a volume of 840 frames would be decompressed 840 times.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from io import BytesIO
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np

from .frame import MAX_BYTES

__all__ = ["Decoded", "recall"]

_Details = TypeVar("_Details")
_CLOCK = 0.1  # seconds: a file that was changed so shortly ago may change again without another time of change


class Decoded(Generic[_Details]):
    """Pixels, and what else was found out on the way.

    Args:
        pixels: all of the file.
        details: whatever is needed to show one frame of them.
    """

    def __init__(self, pixels: np.ndarray, details: _Details) -> None:
        self.pixels, self.details = pixels, details


class _Recent:
    """The most recent files, as many as together hold no more than ``MAX_BYTES``."""

    def __init__(self) -> None:
        self._files: OrderedDict[Hashable, Decoded[Any]] = OrderedDict()
        self.unlock()

    def unlock(self) -> None:
        """Start with a lock of its own, as a process that was forked while another thread held it has to."""
        self._lock = threading.Lock()

    def known(self, stream: BinaryIO, layout: Hashable) -> Decoded[Any] | None:
        """What is kept of a file, None where nothing is."""
        return self._files.get(_key(stream, layout))

    def __call__(self, stream: BinaryIO, layout: Hashable, load: Callable[[], Decoded[_Details]]) -> Decoded[_Details]:
        """The content of an open file.

        Args:
            stream: the file that holds the pixels.
            layout: how these are to be read, where another file tells that.
            load: decodes the file.

        Returns:
            What is kept of the file, or else what was loaded.
        """
        if isinstance(stream, BytesIO):  # no file, so nothing that could be met again
            return load()
        key = _key(stream, layout)
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
            settled = time.time() - os.fstat(stream.fileno()).st_mtime > _CLOCK
            decoded = load()
            if settled:
                self._files[key] = decoded
            while sum(file.pixels.nbytes for file in self._files.values()) > MAX_BYTES:
                self._files.popitem(last=False)
            return decoded


def _key(stream: BinaryIO, layout: Hashable) -> Hashable:
    status = os.fstat(stream.fileno())
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, layout


recall = _Recent()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=recall.unlock)
