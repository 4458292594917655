"""Connections that do not last for ever, whatever the other side does or leaves undone."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["timed_protocol"]


def timed_protocol(seconds: float) -> type[H11Protocol]:
    """A protocol for ``uvicorn.Config(http=...)`` that closes connections in time.

    Uvicorn itself waits without an end for a first request, for the rest of a header, and for a client that does not
    read its response.

    Args:
        seconds: the longest time from the header of a request to the end of its response. For a header it waits as long
            as for the next request (``timeout_keep_alive``).

    Returns:
        The class.
    """

    class TimedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._allow(self.timeout_keep_alive)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:  # a request has begun
                self._allow(seconds)

        def on_response_complete(self) -> None:
            self._allow(self.timeout_keep_alive)
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._allow(None)
            super().connection_lost(exc)

        def _allow(self, time: float | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if time is None else self.loop.call_later(time, self.transport.abort)

    return TimedProtocol
