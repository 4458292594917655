"""What a process of its own is given for a run: errors told plainly, levels of the log, threads.

A notebook or a server that runs a workflow keeps its own.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType

import ignite.distributed as idist
import torch
import torch.distributed as dist
from monai.utils import OptionalImportError

from monai_fetalkd.utils.machine import machine_error, root_error, told

__all__ = ["LOG_FILE", "is_command", "set_up_process", "told_plainly"]

logger = logging.getLogger(__name__)

LOG_FILE = "monai_fetalkd log file"
"""Name of the handler that writes the log of a run."""

_COMMANDS = ("monai.bundle.__main__", "monai_fetalkd.__main__")

# what gloo says when another rank has gone; its errors are of no class of their own
_GLOO_ALONE = ("Connection closed by peer", "Connection reset by peer")


def is_command() -> bool:
    """Whether this process is a command, ``python -m monai.bundle`` or ``python -m monai_fetalkd``, and no one else's.

    Returns:
        True in a command.

    Example:
        >>> is_command()
        False
    """
    return getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None) in _COMMANDS


def set_up_process(quiet: bool = False, threads: int | None = None) -> None:
    """Let errors be told plainly, let the package speak from level INFO on, and set the threads of PyTorch.

    Args:
        quiet: keep the terminal to warnings, errors and the final table.
        threads: threads of PyTorch on the CPU; None leaves them as they are.
    """
    sys.excepthook = told_plainly
    package = logging.getLogger("monai_fetalkd")
    if package.level == logging.NOTSET:
        package.setLevel(logging.INFO)
    if quiet:
        for handler in logging.getLogger().handlers:
            if handler.name != LOG_FILE:
                handler.setLevel(logging.WARNING)
    if threads is not None:
        torch.set_num_threads(threads)


def told_plainly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An excepthook: the sentence alone where the user can mend the error, the traceback where it is ours."""
    error = root_error(error)
    error = _of_the_machine(error) or error
    if _ended_elsewhere(error):
        error = ConnectionError(
            "another process of this job has ended: see what it or torchrun tells, and go on with the same command and "
            "--resume true."
        )
    if not isinstance(error, (ValueError, OSError, FloatingPointError, OptionalImportError)):
        sys.__excepthook__(kind, error, trace)
        return
    record = logger.makeRecord(logger.name, logging.ERROR, "", 0, "%s", (told(error),), (kind, error, trace))
    for handler in logging.getLogger().handlers:
        if handler.name == LOG_FILE:
            handler.handle(record)
    rank = idist.get_rank()
    print(f"error (rank {rank}): {told(error)}" if rank else f"error: {told(error)}", file=sys.stderr)


def _of_the_machine(error: BaseException) -> OSError | None:
    """What a user can do where the disk is full, or the memory."""
    found = machine_error(error)
    if isinstance(error, torch.OutOfMemoryError) or isinstance(found, MemoryError):
        return OSError("There is not enough memory: give a smaller --batch_size, fewer --num_workers, or --cache_dir.")
    if found is None:
        return None
    where = f"'{found.filename}' cannot be written" if found.filename else "The run cannot go on"
    return OSError(f"{where} ({found.strerror}): make room, and go on with the same command and --resume true.")


def _ended_elsewhere(error: BaseException) -> bool:
    """Whether another rank has left this one alone; gloo says so in words only."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    return isinstance(error, dist.DistBackendError) or any(words in str(error) for words in _GLOO_ALONE)
