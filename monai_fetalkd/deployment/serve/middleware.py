"""What every request passes before it is looked at, and every response on its way out."""

from __future__ import annotations

import base64
import hmac
import logging
import math
import time
import traceback
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import RateLimit, Refusal
from .metrics import Metrics

__all__ = ["Guard"]

_logger = logging.getLogger("monai_fetalkd.deployment.serve")

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
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

    Refused are: those that a page of another site has sent, or has the browser send to a name of its own that it lets
    point here (DNS rebinding); where there is a token, those without it; those above the rate. The token may come as
    bearer token or, so that a browser can ask for it, as the password of basic authentication. Requests with a wrong
    token have a rate of their own, so that they use up nobody else's. ``/healthz`` needs neither rate nor token. The
    log holds nothing that a client has made up: no path, method, header or name of a file, and of an error its type and
    place only.

    Args:
        app: what answers the requests that pass. A ``Refusal`` that it raises is sent to the client.
        metrics: where requests are counted.
        per_minute: how often a client may ask.
        token: what a client must show, None for nothing.

    References:
        RFC 6750 (bearer tokens), RFC 7617 (basic authentication); W3C, Fetch Metadata Request Headers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, per_minute: int, token: str | None) -> None:
        self._app, self._metrics = app, metrics
        self._rate, self._wrong_rate = RateLimit(per_minute), RateLimit(per_minute)
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
        except Exception as error:
            places = "".join(traceback.format_tb(error.__traceback__))
            _logger.error("A request has failed with %s:\n%s", type(error).__name__, places)
            if status:  # half of a response is sent; the server closes the connection
                raise RuntimeError("The response has been broken off.") from None
            await _response(Refusal(500, "The server has failed; its log tells why."))(scope, receive, send_safely)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            path = scope["path"] if scope["path"] in {route.path for route in scope["app"].routes} else "other"
            self._metrics.requests.labels(path, status).inc()
            milliseconds = 1000 * (time.perf_counter() - start)
            _logger.info("%s %s %d, %.0f ms", method, path, status, milliseconds)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._token is None and _host(headers) not in _LOOPBACK:
            raise Refusal(400, "This server answers to the names localhost, 127.0.0.1 and [::1] only.")
        navigates = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not navigates:
            raise Refusal(403, "Pages of other sites may not ask here.")
        if scope["path"] == _OPEN_PATH:
            return
        is_known = self._token is None or hmac.compare_digest(_shown_token(headers), self._token)
        rate = self._rate if is_known else self._wrong_rate
        if delay := rate.delay(scope["client"][0] if scope["client"] else ""):
            raise Refusal(429, "Too many requests: try again later.", retry_after=math.ceil(delay))
        if not is_known:
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
