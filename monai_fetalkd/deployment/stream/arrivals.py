"""A frame that has come but is not decoded yet, and a source of such frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from monai_fetalkd.ultrasound.frames import Frame

__all__ = ["Arrival", "Source", "paced"]


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
class Source:
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
