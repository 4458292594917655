"""The frames of a source, answered one after the other, whatever the answer is."""

from __future__ import annotations

import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np

from monai_fetalkd.ultrasound.frames import Frame, FrameError

from .answers import Durations, StreamSummary
from .arrivals import Arrival, Latest

__all__ = ["FrameLoop"]

_logger = logging.getLogger(__name__)


class _Timed(Protocol):
    @property
    def ms(self) -> float: ...


AnswerT = TypeVar("AnswerT", bound=_Timed)


class FrameLoop(ABC, Generic[AnswerT]):
    """Answer the frames of a source, one after the other, to be iterated over once.

    A frame that cannot be decoded is counted and skipped, with one warning for each reason.

    Args:
        source: the frames.
        live: whether the latest frame wins, see :class:`Latest`; else every frame is answered.
    """

    def __init__(self, source: Iterable[Arrival], live: bool = False) -> None:
        self._latest = Latest(source) if live else None
        self._source = source
        self._answered = self._undecodable = 0
        self._durations = Durations()
        self._reasons: set[str] = set()
        self._stopped = False

    @abstractmethod
    def _answer(self, arrival: Arrival, frame: Frame, start: float) -> AnswerT:
        """The answer to a frame whose decoding began at ``start`` of ``time.perf_counter``."""

    def __iter__(self) -> Iterator[AnswerT]:
        for arrival in self._latest or self._source:
            if self._stopped:
                break
            start = time.perf_counter()
            try:
                frame = arrival.decode()
                if not np.isfinite(frame.pixels).all():
                    raise FrameError(str(arrival.number), "its grey levels are not finite")
                answer = self._answer(arrival, frame, start)
            except FrameError as error:
                self._undecodable += 1
                self._warn(error)
            else:
                self._answered += 1
                self._durations.add(answer.ms)
                yield answer
                if self._stopped:
                    break

    def stop(self) -> None:
        """End the iteration after the current frame, from any thread or from a signal handler."""
        self._stopped = True
        if self._latest is not None:
            self._latest.stop()

    @property
    def summary(self) -> StreamSummary:
        """What has become of the frames so far."""
        return StreamSummary(
            seen=self._answered + self.dropped + self._undecodable,
            answered=self._answered,
            dropped=self.dropped,
            undecodable=self._undecodable,
            median_ms=self._durations.quantile(0.5),
            p95_ms=self._durations.quantile(0.95),
        )

    @property
    def dropped(self) -> int:
        """How many frames later ones have replaced."""
        return self._latest.dropped if self._latest is not None else 0

    def _warn(self, error: FrameError) -> None:
        reason = re.sub(r"\d[\d,]*", "#", error.reason)  # the same reason in another frame
        if reason not in self._reasons:
            self._reasons.add(reason)
            _logger.warning("%s It is skipped; further frames with this problem are only counted.", error)
