"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from monai_fetalkd.utils.machine import writing

__all__ = ["folder_written_whole", "written_whole"]


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
        >>> import tempfile
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


def _sync_folder(folder: Path) -> None:
    """Put the new name on disk, where the system can: Windows opens no folders, some network drives sync none."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
