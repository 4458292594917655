"""Files of frames that strangers send, read in a process of its own: it can be ended, and its memory is limited."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .frame import Frame, FrameError, FrameSource
from .reader import open_frames

__all__ = ["Decoder"]

# a fork server has numpy, Pillow and pydicom loaded: a process that was ended is replaced in milliseconds
_CONTEXT = (
    multiprocessing.get_context("forkserver") if sys.platform == "linux" else multiprocessing.get_context("spawn")
)
_PRELOADED = [__name__, f"{__package__}.dicom"]


class Decoder:
    """Reads one file after the other in a process of its own; for one thread at a time.

    Native code that is busy for minutes, as with a JPEG file of 20,000 scans, can be ended in no other way. The process
    starts with the first file, and again after it was ended. As always with :mod:`multiprocessing`, a script that uses
    it needs ``if __name__ == "__main__":``.

    Args:
        seconds: the longest time for the header of a file, and for each frame.
        memory: bytes of data that the process may hold beyond what it starts with, on Linux; elsewhere there is no
            limit.

    Example:
        >>> decoder = Decoder(seconds=10, memory=2**30)
        >>> with decoder.open("loop.dcm", time.perf_counter() + 60) as file:  # doctest: +SKIP
        ...     file.frame(file.count - 1).pixels.shape
        (480, 640)
        >>> decoder.close()
    """

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds, self._memory = seconds, memory
        self._process: Any = None
        self._connection: Connection | None = None

    @contextmanager
    def open(self, path: str, deadline: float) -> Iterator[FrameSource]:
        """Open a file, as :func:`monai_fetalkd.ultrasound.frames.reader.open_frames` does.

        Args:
            path: the file.
            deadline: :func:`time.perf_counter` at which reading has to be over.

        Yields:
            The open file; its frames are decoded in the other process.

        Raises:
            FrameError: when the file, or a frame, cannot be read, or takes more memory than it may.
            TimeoutError: when it takes too long.
        """

        def ask(question: str | int) -> Any:
            return self._ask(question, path, deadline)

        count = ask(path)
        try:
            yield _Source(count, ask)
        finally:
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.send(None)

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
        self._connection = self._process = None

    def _ask(self, question: str | int, path: str, deadline: float) -> Any:
        too_long = TimeoutError(f"The frame '{path}' takes too long to decode.")
        left = deadline - time.perf_counter()
        if left <= 0:
            raise too_long
        connection = self._connection or self._start()
        try:
            connection.send(question)
            if not connection.poll(min(self._seconds, left)):
                self.close()
                raise too_long
            answer = connection.recv()
        except (EOFError, ConnectionError):
            self.close()
            raise FrameError(path, f"its decoder failed, {self._said_of_memory}") from None
        if isinstance(answer, MemoryError):
            raise FrameError(path, self._said_of_memory)
        if isinstance(answer, FrameError):
            raise answer
        return answer

    def _start(self) -> Connection:
        if _CONTEXT.get_start_method() == "forkserver":
            _CONTEXT.set_forkserver_preload(_PRELOADED)
        self._connection, other = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_read_files, args=(other, self._memory), daemon=True)
        self._process.start()
        other.close()
        return self._connection

    @property
    def _said_of_memory(self) -> str:
        return f"it is damaged or takes more than {self._memory // 10**6:,} MB of memory"


class _Source:
    """A file that is open in the other process."""

    def __init__(self, count: int, ask: Callable[[int], Any]) -> None:
        self.count = count
        self._ask = ask

    def frame(self, number: int) -> Frame:
        """Have one frame decoded."""
        return self._ask(number)

    def time(self, number: int) -> None:
        """The other process is asked for frames alone."""


def _held() -> int:
    """Bytes of data that this process holds, on Linux."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmData:")]
    return 1024 * int(kilobytes)


def _read_files(connection: Connection, memory: int) -> None:
    """What the other process does until the pipe is closed: a path opens a file, a number asks for a frame of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C ends the parent, and that closes the pipe
    if sys.platform == "linux":
        import resource

        limit = _held() + memory  # a server of forks that another part of the program began may have imported much
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the frame of a patient
    with suppress(EOFError, OSError):
        while True:
            path = connection.recv()
            if path is not None:
                answer = _answer(path, partial(_read_file, connection, path))
                if answer is not None:
                    connection.send(answer)


def _read_file(connection: Connection, path: str) -> None:
    with open_frames(path) as source:
        connection.send(source.count)
        while (number := connection.recv()) is not None:
            connection.send(_answer(path, partial(source.frame, number)))


def _answer(path: str, action: Callable[[], Any]) -> Any:
    """What an action returns, or why it failed; of other errors than those of the reader nothing is told."""
    try:
        return action()
    except (EOFError, ConnectionError):
        raise
    except FrameError as error:
        return MemoryError() if isinstance(error.__context__, MemoryError) else error
    except MemoryError:
        return MemoryError()
    except Exception:
        return FrameError(path, "it is damaged")
