"""Files that appear whole or not at all, and files that can be written: known before there is something to write."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from monai_fetalkd.utils.machine import writing

__all__ = ["folder_written_whole", "prepare_file", "prepare_folder", "told_if_unwritten", "written_whole"]

_ROOM = 2**20  # bytes: less than that is a full disk


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name beside it, and give it its own name once it is complete and on disk.

    Whoever is killed in between, by SIGKILL or by a power cut, leaves the former file as it was; an error, such as a
    full disk, removes the temporary file too. Each call has a temporary name of its own: of several writers at the same
    time, the last one to finish wins.

    Args:
        path: the file to write; its folder is made where it does not exist.

    Yields:
        The temporary path to write to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with written_whole(path) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> path.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part-{secrets.token_hex(8)}")
    try:
        with writing(path):
            yield temporary
            with temporary.open("r+b") as file:  # Windows syncs only what is open for writing
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == str(temporary):
            error.filename, error.filename2 = os.fspath(path), None  # whoever asked knows this name
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def folder_written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder under a temporary name of its own beside it, and give it its name once it is complete.

    Whoever is killed in between leaves no folder of that name. Of several writers at the same time the first one to
    finish wins, and the others leave what it has written.

    Args:
        path: the folder, which is absent or empty; those above it are made where they do not exist.

    Yields:
        The temporary folder to write into.

    Raises:
        OSError: when it cannot be written.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "frames"
        >>> with folder_written_whole(path) as temporary:
        ...     _ = (temporary / "note.txt").write_text("whole")
        >>> [file.name for file in path.iterdir()]
        ['note.txt']
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.part-{secrets.token_hex(8)}")
    temporary.mkdir(parents=True)
    try:
        with writing(path):
            yield temporary
        with suppress(OSError):
            path.rmdir()  # where it is empty: Windows replaces no folder
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def _sync_folder(folder: Path) -> None:
    """Put the new name on disk, where the system can: Windows opens no folders, some network drives sync none."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
