"""What clients may ask for: how much, how often, and how many at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Limits", "RateLimit", "Refusal", "Slots"]


class Refusal(Exception):  # noqa: N818, most are no error of this program
    """A request that is not answered, and why.

    Args:
        status: HTTP status code.
        sentence: why, for the client; it must not tell a path of this machine.
        retry_after: seconds after which the same request may succeed, where waiting helps.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after


@dataclass(frozen=True)
class Limits:
    """What clients may ask for.

    Args:
        megabytes: size of an upload, in units of 1,000,000 bytes.
        frames: number of frames of a cine.
        seconds: time for an upload to arrive, and again for its frames to be recognised.
        requests_per_minute: requests of one client; it may spend those of a minute at once.
        under_way: uploads that arrive, wait or are recognised at the same time, of all clients together. With
            ``megabytes`` it bounds what is on disk.

    Raises:
        ValueError: when one of them is not positive.
    """

    megabytes: int = 64
    frames: int = 1000
    seconds: float = 60.0
    requests_per_minute: int = 600
    under_way: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, not {value}.")


class RateLimit:
    """How often each client may ask: the generic cell rate algorithm, which keeps one number a client.

    Args:
        per_minute: requests in any minute on average; as many may come at once.
        clock: tells the time in seconds.

    Example:
        >>> limit = RateLimit(2, clock=lambda: 0.0)
        >>> [limit.delay("127.0.0.1") for _ in range(3)]
        [0.0, 0.0, 30.0]
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._step = 60 / per_minute
        self._clock = clock
        self._paid: dict[str, float] = {}  # the time up to which the requests of a client have used up its rate

    def delay(self, client: str) -> float:
        """Count a request of a client, unless there were too many.

        Returns:
            Seconds until it may ask again, 0 when it may now.
        """
        now = self._clock()
        paid = max(self._paid.get(client, now), now) + self._step
        if paid - now > 60 + 1e-9:
            return paid - now - 60
        if len(self._paid) >= 1000:  # those that have waited long enough are as good as unknown
            self._paid = {name: time for name, time in self._paid.items() if time > now}
        self._paid[client] = paid
        return 0.0


class Slots:
    """How many requests may be under way at once; there is no queue beyond them.

    Args:
        count: the number of slots.
    """

    def __init__(self, count: int) -> None:
        self._free = count

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a slot for a while; for use in one event loop.

        Raises:
            Refusal: when none is free.
        """
        if self._free == 0:
            raise Refusal(503, "Too many uploads are under way: try again in a second.", retry_after=1)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
