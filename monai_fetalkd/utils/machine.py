"""Errors of the machine, such as a full disk, told apart from errors of the data; what an error comes down to."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_fetalkd.utils.requirements import pip_install

__all__ = ["check_writable", "first_line", "machine_error", "root_error", "told", "writing"]

_DISK_FULL = {errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else [])}  # no quota on Windows
_OF_THE_MACHINE = _DISK_FULL | {errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def machine_error(error: BaseException | None) -> OSError | MemoryError | None:
    """The error of the machine behind an error: a disk that is full or read-only, too many open files, no memory.

    Args:
        error: the error; those that it was raised from, or while handling, are looked at too.

    Returns:
        The error of the machine; None where there is none.

    Example:
        >>> machine_error(ValueError("damaged")) is None
        True
        >>> machine_error(OSError(errno.ENOSPC, "No space left on device"))
        OSError(28, 'No space left on device')
    """
    seen: set[int] = set()  # an error that was raised anew may be in its own chain
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE):
            return error
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file, or the folder, that cannot be written because the disk is full.

    Torch raises an error of its own when the disk fills up in the middle of a file: give ``torch.save`` an open file,
    not a path, and the error of the disk is behind that.

    Args:
        path: what is written.

    Raises:
        OSError: when the disk is full.

    Example:
        >>> with writing("model.pt"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        ...
        OSError: [Errno 28] No space left on device: 'model.pt'
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = machine_error(error)
        if isinstance(cause, OSError) and cause.errno in _DISK_FULL:
            raise OSError(cause.errno, cause.strerror, os.fspath(path)) from error
        raise


def root_error(error: BaseException) -> BaseException:
    """The error of a component or an expression, without those that MONAI wraps around it for each level of a config.

    Args:
        error: what came out of a config.

    Returns:
        The innermost error, which may be the same.

    Example:
        >>> from monai.bundle import ConfigParser
        >>> parser = ConfigParser({"folder": "$open('/nowhere')"})
        >>> try:
        ...     parser.get_parsed_content("folder")
        ... except RuntimeError as error:
        ...     root_error(error)
        FileNotFoundError(2, 'No such file or directory')
    """
    while type(error) is RuntimeError and error.__cause__ is not None and _raised_by_monai(error):
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    r"""What the root of an error says, as part of a sentence: its first line, or its type where it says nothing.

    Example:
        >>> first_line(KeyError()), first_line(ValueError("too wide. \nSee ..."))
        ('KeyError', 'too wide')
    """
    error = root_error(error)
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .") if lines else type(error).__name__


def told(error: BaseException) -> str:
    """An error in a sentence; Python's own of a file come as numbers, ``[Errno 13] Permission denied: 'a.json'``.

    Args:
        error: the error.

    Returns:
        The sentence.

    Example:
        >>> told(PermissionError(errno.EACCES, "Permission denied", "a.json"))
        "'a.json': Permission denied."
        >>> told(ModuleNotFoundError("No module named 'sklearn'", name="sklearn"))
        "'sklearn' is not installed: run `pip install scikit-learn`."
    """
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("monai_fetalkd"):
        return f"'{error.name}' is not installed: run `{pip_install(error.name)}`."
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.filename}': {error.strerror}." if error.filename else f"{error.strerror}."
    return str(error)


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Check that files can be written into a folder, or that it can be made.

    Args:
        folder: the folder; where it does not exist, the check leaves it so.

    Raises:
        OSError: when they cannot.

    Example:
        >>> check_writable("/dev/null/results")
        Traceback (most recent call last):
        ...
        OSError: The folder '/dev/null/results' cannot be written (Not a directory): choose another, or mend its rights.
    """
    try:
        there = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"0")
    except OSError as error:
        raise OSError(
            f"The folder '{folder}' cannot be written ({error.strerror}): choose another, or mend its rights."
        ) from error


def _raised_by_monai(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith("monai.")
