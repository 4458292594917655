"""Frames in, answers out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from monai_fetalkd.ultrasound.frames import Frame, FrameError

from .answers import Answer
from .arrivals import Arrival
from .loop import FrameLoop
from .smoothing import Smoothing

__all__ = ["FrameRecognizer", "Stream"]


class FrameRecognizer(Protocol):
    """What a stream asks of a :class:`monai_fetalkd.deployment.runtime.Recognizer`."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes."""

    def __call__(self, pixels: np.ndarray, region: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Probabilities of the classes in a frame."""


class Stream(FrameLoop[Answer]):
    """Recognise the frames of a source, one after the other, to be iterated over once.

    A frame that cannot be decoded is counted and skipped, with one warning for each reason.

    Args:
        recognizer: gives the probabilities of a frame.
        source: the frames.
        live: whether the latest frame wins, see :class:`Latest`; else every frame is answered.
        smoothing: filter of the probabilities; a new one with its defaults unless given.
        threshold: smoothed probability under which no plane is decided on; None for an answer to every frame.

    Raises:
        ValueError: when the threshold is no probability.

    Example:
        >>> from monai_fetalkd.ultrasound.frames import Frame
        >>> from monai_fetalkd.deployment.stream import Arrival
        >>> class Brightness:
        ...     class_names = ("dark", "bright")
        ...     def __call__(self, pixels, region=None):
        ...         return np.array([255 - pixels.mean(), pixels.mean()]) / 255
        >>> frames = [Frame(np.full((20, 20), level)) for level in (0, 0, 255)]
        >>> source = [Arrival(n, 40.0 * n, lambda n=n: frames[n]) for n in range(3)]
        >>> [answer.plane for answer in Stream(Brightness(), source, smoothing=Smoothing(delay=0))]
        ['dark', 'dark', 'bright']
    """

    def __init__(
        self,
        recognizer: FrameRecognizer,
        source: Iterable[Arrival],
        live: bool = False,
        smoothing: Smoothing | None = None,
        threshold: float | None = None,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"The threshold is a probability from 0 to 1, not {threshold}.")
        super().__init__(source, live)
        self._recognizer = recognizer
        self._smoothing = smoothing or Smoothing()
        self._threshold = threshold
        self._last: int | None = None

    def _answer(self, arrival: Arrival, frame: Frame, start: float) -> Answer:
        probabilities = self._recognizer(frame.pixels, frame.region)
        if not np.isfinite(probabilities).all():
            raise FrameError(str(arrival.number), "the output of the network for it is not finite")
        smoothed = self._smoothing.update(probabilities, 1 if self._last is None else arrival.number - self._last)
        ms = 1000 * (time.perf_counter() - start)
        self._last = arrival.number
        names, best = self._recognizer.class_names, int(smoothed.argmax())
        sure = self._threshold is None or smoothed[best] >= self._threshold
        return Answer(
            number=arrival.number,
            time_ms=arrival.time if frame.time is None else frame.time,
            plane=names[best] if sure else None,
            probability=float(smoothed[best]),
            probabilities=dict(zip(names, probabilities.tolist(), strict=True)),
            smoothed=dict(zip(names, smoothed.tolist(), strict=True)),
            ms=ms,
            dropped=self.dropped,
            frame=frame,
        )
