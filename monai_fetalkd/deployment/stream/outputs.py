"""What is known of a file before it is written: that it can be, and that it shows no one else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["prepare_file", "prepare_folder", "told_if_unwritten"]

_ROOM = 2**20  # bytes: less than that is a full disk


def prepare_file(path: str | os.PathLike[str]) -> None:
    """Make sure that a file can be written later, and remove an older one: it may show another patient.

    Args:
        path: the file; its folder is made where it does not exist.

    Raises:
        OSError: when it cannot be written, or the disk is full.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> prepare_file(folder / "planes" / "loop.png")
        >>> [path.name for path in folder.rglob("*")]
        ['planes']
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder: name a file.")
    prepare_folder(path.parent, path)
    with told_if_unwritten(path):
        path.unlink(missing_ok=True)


def prepare_folder(folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> None:
    """Make sure that files can be written into a folder later.

    Args:
        folder: the folder; it is made where it does not exist.
        path: what an error names; the folder unless given.

    Raises:
        OSError: when no file can be written there, or the disk is full.
    """
    with told_if_unwritten(path or folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_ROOM))


@contextmanager
def told_if_unwritten(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an error of the system say in one sentence what cannot be written, and why.

    Raises:
        OSError: of the same number.

    Example:
        >>> with told_if_unwritten("loop.png"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        OSError: 'loop.png' cannot be written: No space left on device.
    """
    try:
        yield
    except OSError as error:
        told = OSError(f"'{os.fspath(path)}' cannot be written: {error.strerror or str(error).rstrip('.')}.")
        told.errno = error.errno
        raise told from error
