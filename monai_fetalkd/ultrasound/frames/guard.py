"""What stands between decoders and the outside: missing files, errors, warnings and log lines."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import BinaryIO

import numpy as np

from monai_fetalkd.utils.machine import machine_error

from .frame import FrameError, FrameWarning

__all__ = ["guarded", "opened", "warn_once"]


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

    A machine without memory, or without file descriptors, is told as that, and not as damage of the file.

    What decoders say may quote the header of a DICOM file, that is a person: nothing of it is shown, or chained to the
    error.
    """
    try:
        with _quiet, np.errstate(all="ignore"):
            yield
    except (FrameError, FrameWarning):
        raise
    except Exception as error:
        cause = machine_error(error)
        if isinstance(cause, MemoryError):
            reason = "there is not enough memory for it"
        elif cause is not None:
            reason = f"the machine does not let it ({cause.strerror})"
        raise FrameError(path, reason) from None


@lru_cache(maxsize=4096)
def warn_once(path: str, reason: str) -> None:
    """Warn of something in a file that is left out or assumed; the same is told once, however often it is read.

    Args:
        path: the file.
        reason: the end of a sentence. It names attributes, never their values, which may be those of a person.
    """
    warnings.warn(f"The frame '{path}' is read, but {reason}.", FrameWarning, stacklevel=2)


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
