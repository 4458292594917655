"""One run a folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["hold_folder", "release_folder"]

logger = logging.getLogger(__name__)

_NAME = "run.lock"
_OFFSET = 1 << 20  # of the byte that is locked, behind the text: Windows lets nobody read a locked byte
_HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

_held: tuple[Path, IO[str]] | None = None  # by this process, which has one run at a time


def hold_folder(folder: str | os.PathLike[str]) -> None:
    """Hold a folder for the run of this process; the one held before is released.

    The system releases it when the process ends, by SIGKILL too, so that a run which was killed can be resumed at once.

    Args:
        folder: an existing folder.

    Raises:
        FileExistsError: when another process holds it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> hold_folder(folder)
        >>> hold_folder(folder)  # by the same process
        >>> release_folder()
    """
    global _held
    path = Path(folder).resolve() / _NAME
    if _held is not None and _held[0] == path:
        return
    release_folder()
    file = path.open("a+", encoding="utf-8")
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise FileExistsError(
                f"Another run ({holder}) is writing into '{folder}': wait until it has ended, or give another "
                "--output_dir."
            ) from None
        logger.warning("'%s' cannot be locked (%s): start no second run into this folder.", path, error.strerror)
    file.truncate(0)
    file.write(f"process {os.getpid()}\n")
    file.flush()
    _held = path, file


def release_folder() -> None:
    """Release the folder that this process holds, if it holds one."""
    global _held
    if _held is not None:
        _held[1].close()
        _held = None


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        file.seek(_OFFSET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        # not flock: the processes of a loader would inherit that, and hold it a while after the run was killed
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _OFFSET)
