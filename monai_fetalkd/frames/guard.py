"""What stands between decoders and the outside: missing files, errors, warnings and log lines."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from .frame import FrameError

__all__ = ["guarded", "opened"]


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading.

    Raises:
        FileNotFoundError: when there is none.
        FrameError: when it is a folder, may not be read, or is empty.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115, the errors of opening differ from those inside the block
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"The frame '{path}' does not exist.") from None
    except (OSError, ValueError) as error:
        raise FrameError(path, getattr(error, "strerror", None) or str(error)) from None
    with stream:
        if not stream.read(1):
            raise FrameError(path, "it is empty")
        stream.seek(0)
        yield stream


@contextmanager
def guarded(path: str, reason: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a ``FrameError``, and let no decoder warn or log.

    What decoders say may quote the header of a DICOM file, that is a person: nothing of it is shown, or chained to the
    error.
    """
    try:
        with _quiet, np.errstate(all="ignore"):
            yield
    except FrameError:
        raise
    except Exception:
        raise FrameError(path, reason) from None


# those that decoders write to; raising the level of their parents would cost more than opening a file
_LOGGERS = (
    *("PIL.ImageFile", "PIL.PcxImagePlugin", "PIL.PngImagePlugin", "PIL.TiffImagePlugin"),
    *("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.utils"),
    "nibabel.global",
)


class _Quiet:
    """Silences the decoders while at least one thread is in it, and then leaves no trace.

    ``warnings.catch_warnings`` alone restores the filters in the wrong order when threads overlap.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._loggers = [logging.getLogger(name) for name in _LOGGERS]

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            self._warnings = warnings.catch_warnings()
            self._warnings.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom|nibabel)\b")
            self._disabled = [logger.disabled for logger in self._loggers]
            for logger in self._loggers:
                logger.disabled = True

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            self._warnings.__exit__(None, None, None)
            for logger, disabled in zip(self._loggers, self._disabled, strict=True):
                logger.disabled = disabled


_quiet = _Quiet()
