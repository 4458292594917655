"""What a stream says: one answer a frame, and a summary."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from monai_fetalkd.ultrasound.frames import Frame

__all__ = ["Answer", "Durations", "StreamSummary"]


@dataclass(frozen=True)
class Answer:
    """What one frame shows.

    Args:
        number: index of the frame in its source.
        time_ms: milliseconds since the first frame, where the source tells.
        plane: class of the largest smoothed probability, None (undecided) where that is under the threshold.
        probability: the largest smoothed probability.
        probabilities: of each class, in this frame alone.
        smoothed: of each class, over this frame and those before.
        ms: milliseconds from the frame as it came to the answer: decoding and inference.
        dropped: how many frames before this one have been dropped.
        frame: the frame itself.
    """

    number: int
    time_ms: float | None
    plane: str | None
    probability: float
    probabilities: dict[str, float]
    smoothed: dict[str, float]
    ms: float
    dropped: int
    frame: Frame = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """The answer for people: "Fetal brain 84 %" or, under the threshold, "undecided (Fetal brain 34 %)"."""
        likeliest = f"{max(self.smoothed, key=self.smoothed.__getitem__)} {100 * self.probability:.0f} %"
        return likeliest if self.plane is not None else f"undecided ({likeliest})"

    def to_dict(self) -> dict[str, Any]:
        """What a JSON line holds: all but the pixels, probabilities to six places."""
        return {
            "frame": self.number,
            "time_ms": None if self.time_ms is None else round(self.time_ms, 3),
            "plane": self.plane,
            "probability": round(self.probability, 6),
            "probabilities": {name: round(value, 6) for name, value in self.probabilities.items()},
            "smoothed": {name: round(value, 6) for name, value in self.smoothed.items()},
            "ms": round(self.ms, 3),
            "dropped": self.dropped,
        }


class Durations:
    """Quantiles of any number of durations in constant memory, each to one percent.

    Durations are counted in classes that are two percent wide.

    Example:
        >>> durations = Durations()
        >>> for milliseconds in range(1, 101):
        ...     durations.add(milliseconds)
        >>> round(durations.quantile(0.5)), round(durations.quantile(0.95))
        (50, 95)
    """

    _WIDTH = math.log(1.02)
    _SHORTEST = 1e-3

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, milliseconds: float) -> None:
        """Count one duration; those under a microsecond as a microsecond."""
        self._counts[round(math.log(max(milliseconds, self._SHORTEST)) / self._WIDTH)] += 1

    def quantile(self, fraction: float) -> float | None:
        """The duration that this fraction does not exceed, None before there is any."""
        missing = fraction * self._counts.total()
        for place in sorted(self._counts):
            missing -= self._counts[place]
            if missing <= 0:
                return math.exp(place * self._WIDTH)
        return None


@dataclass(frozen=True)
class StreamSummary:
    """A stream so far. Frames seen are those answered, dropped and undecodable.

    Args:
        seen: how many frames have come.
        answered: how many were recognised.
        dropped: how many later frames have replaced, since inference was busy.
        undecodable: how many could not be decoded.
        median_ms: of the milliseconds of the answers; None without any.
        p95_ms: their 95th percentile.
    """

    seen: int
    answered: int
    dropped: int
    undecodable: int
    median_ms: float | None
    p95_ms: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, durations to the microsecond."""
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        counts = f"{self.seen} frames: {self.answered} answered, {self.dropped} dropped, {self.undecodable} undecodable"
        if self.median_ms is None:
            return counts
        return f"{counts}; {self.median_ms:.1f} ms a frame (median), {self.p95_ms:.1f} ms (95th percentile)"
