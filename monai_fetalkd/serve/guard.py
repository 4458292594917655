"""What every request passes before it is looked at, and every response on its way out."""

from __future__ import annotations

import base64
import hmac
import logging
import math
import time
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import RateLimit, Refusal
from .metrics import Metrics

__all__ = ["Guard"]

_logger = logging.getLogger("monai_fetalkd.serve")

_OPEN_PATH = "/healthz"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Middleware that refuses, counts and logs requests, and adds security headers to what is sent.

    Refused are: requests above the rate; those that a page of another site has sent, or has the browser send to a name
    of its own that it lets point here (DNS rebinding); where there is a token, those without it. It may come as bearer
    token or, so that a browser can ask for it, as the password of basic authentication. ``/healthz`` needs neither
    rate nor token. The log holds no name of a file and no path that the client has made up.

    Args:
        app: what answers the requests that pass. A ``Refusal`` that it raises is sent to the client.
        metrics: where requests are counted.
        rate: how often a client may ask.
        token: what a client must show, None for nothing.

    References:
        RFC 6750 (bearer tokens), RFC 7617 (basic authentication); W3C, Fetch Metadata Request Headers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, rate: RateLimit, token: str | None) -> None:
        self._app, self._metrics, self._rate = app, metrics, rate
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, status = time.perf_counter(), 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, send_safely)
        except Refusal as refusal:
            await _response(refusal)(scope, receive, send_safely)
        except Exception:
            _logger.exception("a request has failed")
            if status:  # half of a response is sent; the connection is closed
                raise
            await _response(Refusal(500, "The server has failed; its log tells why."))(scope, receive, send_safely)
        finally:
            path = scope["path"] if scope["path"] in {route.path for route in scope["app"].routes} else "other"
            self._metrics.requests.labels(path, status).inc()
            milliseconds = 1000 * (time.perf_counter() - start)
            _logger.info("%s %s %d, %.0f ms", scope["method"], path, status, milliseconds)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._token is None and _host(headers) not in _LOOPBACK:
            raise Refusal(400, "This server answers to the names localhost, 127.0.0.1 and [::1] only.")
        navigates = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not navigates:
            raise Refusal(403, "Pages of other sites may not ask here.")
        if scope["path"] == _OPEN_PATH:
            return
        if delay := self._rate.delay(scope["client"][0] if scope["client"] else ""):
            raise Refusal(429, "Too many requests: try again later.", retry_after=math.ceil(delay))
        if self._token is not None and not hmac.compare_digest(_shown_token(headers), self._token):
            raise Refusal(401, "A token is needed: send it as bearer token, or as password of basic authentication.")


def _host(headers: Headers) -> str | None:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return None


def _shown_token(headers: Headers) -> bytes:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:
            pass
    return b""


def _response(refusal: Refusal) -> JSONResponse:
    response = JSONResponse({"detail": refusal.sentence}, refusal.status)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        response.headers.append("WWW-Authenticate", "Bearer")
        response.headers.append("WWW-Authenticate", 'Basic realm="monai_fetalkd", charset="UTF-8"')
    return response
