"""What the server counts of itself, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client import generate_latest as text_of

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server; two servers in one process do not share them.

    Attributes:
        requests: requests by path and status.
        frames: frames by what came of them: ``plane`` or ``no_plane``, ``head`` or ``no_head``, or ``undecodable``.
        seconds: time from the last byte of an upload to its answer.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory and processor time
        self.requests = Counter(
            "monai_fetalkd_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self.frames = Counter(
            "monai_fetalkd_frames", "Frames by what came of them.", ["outcome"], registry=self._registry
        )
        self.seconds = Histogram(
            "monai_fetalkd_prediction_seconds",
            "Time from the last byte of an upload to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return text_of(self._registry)
