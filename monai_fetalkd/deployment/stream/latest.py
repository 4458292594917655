"""The latest frame wins: a reader that never waits, and a slot that holds one frame."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from .arrivals import Arrival

__all__ = ["Latest"]


class Latest:
    """The most recent frame of a source each time one is asked for.

    A thread takes frames as they come and puts them in a slot, where each replaces the one before that nobody took. So
    whoever iterates gets a frame that came while the one before was worked on, or waits for the next: memory and delay
    stay the same however slow the work is.

    Args:
        source: frames as they come.

    Example:
        >>> from monai_fetalkd.deployment.stream import Arrival
        >>> latest = Latest(Arrival(number, None, lambda: None) for number in range(100))
        >>> numbers = [arrival.number for arrival in latest]
        >>> numbers[-1], len(numbers) + latest.dropped
        (99, 100)
    """

    def __init__(self, source: Iterable[Arrival]) -> None:
        self._source = source
        self._change = threading.Condition()  # of a reentrant lock: a signal handler of the iterating thread may stop
        self._slot: Arrival | None = None
        self._error: Exception | None = None
        self._ended = False
        self._stopped = False
        self._replaced = 0
        self.dropped = 0
        """How many frames nobody took, of those before the last one that was taken."""

    def __iter__(self) -> Iterator[Arrival]:
        reader = threading.Thread(target=self._read, name="reader of frames", daemon=True)
        reader.start()
        try:
            while (arrival := self._take()) is not None:
                yield arrival
        finally:
            self.stop()
            reader.join(timeout=1)  # it may wait for a frame that never comes
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the iteration, from any thread or from a signal handler; a frame in the slot is dropped."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def _take(self) -> Arrival | None:
        with self._change:
            self._change.wait_for(lambda: self._slot is not None or self._ended or self._stopped)
            arrival, self._slot = self._slot, None
            self.dropped += self._replaced
            self._replaced = 0
            if self._stopped and arrival is not None:
                self.dropped += 1
                return None
            return arrival

    def _read(self) -> None:
        try:
            for arrival in self._source:
                with self._change:
                    if self._stopped:
                        break
                    self._replaced += self._slot is not None
                    self._slot = arrival
                    self._change.notify_all()
        except Exception as error:  # raised to whoever iterates, once the frames before it are taken
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()
