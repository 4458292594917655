"""Frames that have come but are not decoded yet: their stream, held to its pace, or the latest of them alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from monai_fetalkd.ultrasound.frames import Frame

__all__ = ["Arrival", "FrameStream", "Latest", "paced"]


@dataclass(frozen=True)
class Arrival:
    """A frame that has come. It is decoded by whoever wants it, so that a dropped frame costs next to nothing.

    Args:
        number: index of the frame in its source, counting those that are dropped or cannot be decoded.
        time: milliseconds since the first frame, where the source tells before the frame is decoded.
        decode: gives the frame, or raises :class:`monai_fetalkd.ultrasound.frames.FrameError`.
    """

    number: int
    time: float | None
    decode: Callable[[], Frame]


@dataclass(frozen=True)
class FrameStream:
    """Frames in the order of their coming, to be iterated over once.

    Args:
        arrivals: the frames.
        live: whether they come at their own pace, so that the latest frame has to win.
        fps: frames a second, where that is known.
    """

    arrivals: Iterable[Arrival]
    live: bool = False
    fps: float | None = None

    def __iter__(self) -> Iterator[Arrival]:
        return iter(self.arrivals)


def paced(arrivals: Iterable[Arrival], speed: float = 1.0) -> Iterator[Arrival]:
    """Hold each frame back until its time has come, as if the source were live.

    Args:
        arrivals: frames with times.
        speed: how many times faster than the clock.

    Yields:
        The same frames.

    Raises:
        ValueError: when a frame has no time.
    """
    start = time.monotonic()
    for arrival in arrivals:
        if arrival.time is None:
            raise ValueError("The source does not tell the times of its frames: give the frame rate (--fps).")
        time.sleep(max(0.0, start + arrival.time / 1000 / speed - time.monotonic()))
        yield arrival


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
