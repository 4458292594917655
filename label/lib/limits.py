"""What the server takes and how it says no: sizes of uploads, number of sessions, errors as HTTP 4xx."""

from __future__ import annotations

import functools
import logging
import shutil
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import requests
from fastapi import FastAPI, HTTPException, Request
from monailabel.endpoints.user import auth
from monailabel.interfaces.exception import MONAILabelException
from monailabel.utils.sessions import Sessions
from starlette.middleware import Middleware
from starlette.responses import JSONResponse

logger = logging.getLogger(__name__)

_Message = MutableMapping[str, Any]


class LimitedSessions(Sessions):
    """MONAI Label's sessions, of which there are only so many, and whose names are no paths.

    Args:
        store_path: folder of the sessions; empty for MONAI Label's default.
        expiry: seconds after which a session that nobody uses is removed.
        limit: how many there may be.
    """

    def __init__(self, store_path: str, expiry: int, limit: int) -> None:
        super().__init__(store_path, expiry)
        self.limit = limit

    def add_session(self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: Any = None) -> Any:
        """Open a session, when there is room for one."""
        store = Path(self.store_path)
        count = sum(path.is_dir() for path in store.iterdir()) if store.is_dir() else 0
        reason = None
        if uncompress:
            reason = HTTPException(400, "Archives are not unpacked here: send the frames themselves.")
        elif count >= self.limit:
            reason = HTTPException(429, f"There are {count} sessions already: close one, or wait until one expires.")
        if reason is not None:
            data = Path(data_file)
            shutil.rmtree(data if data.is_dir() else data.parent, ignore_errors=True)
            raise reason
        return super().add_session(data_file, expiry, uncompress, session_id)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """The session of this name, or None."""
        try:
            uuid.UUID(session_id)
        except ValueError:
            return None
        return super().get_session(session_id, update_ts, fetch_cache)


class _LimitedBody:
    """Refuses a request whose body is larger than the limit, whether its header says so or not."""

    def __init__(self, app: Callable[..., Awaitable[None]], limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: _Message, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sizes = [value for name, value in scope["headers"] if name == b"content-length"]
        if sizes and int(sizes[0]) > self.limit:
            answer = JSONResponse({"detail": f"The upload is larger than the limit of {self.limit} bytes."}, 413)
            await answer(scope, receive, send)
            return
        received = 0

        async def counted() -> _Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise HTTPException(413, f"The upload is larger than the limit of {self.limit} bytes.")
            return message

        await self.app(scope, counted, send)


def guard_server(max_upload: int) -> None:
    """Set the limits of MONAI Label's server, which has no place for them in its settings.

    Args:
        max_upload: bytes of the largest request.
    """
    from monailabel.app import app

    _accept_signed_tokens()
    app.add_exception_handler(requests.RequestException, _no_realm)
    app.add_exception_handler(ValueError, _bad_request)  # malformed JSON, FrameError and our own checks among them
    app.add_exception_handler(FileNotFoundError, _not_found)
    app.add_exception_handler(MONAILabelException, _monailabel_error)
    app.user_middleware.append(Middleware(_LimitedBody, limit=max_upload))
    # it would start the app anew for anybody, with no token
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/reload"]
    _rebuild(app)


def _accept_signed_tokens() -> None:
    """Tell PyJWT the algorithm of tokens: MONAI Label 0.8.5 does not, and PyJWT 2 then refuses every one of them."""
    auth.jwt = SimpleNamespace(decode=functools.partial(jwt.decode, algorithms=["RS256"]))


def _rebuild(app: FastAPI) -> None:
    app.middleware_stack = app.build_middleware_stack()  # it was built before there was an app to set limits


def _bad_request(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, 400, str(error))


def _not_found(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, 404, str(error))


def _no_realm(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, 503, "The server that signs tokens (MONAI_LABEL_AUTH_REALM_URI) does not answer.")


def _monailabel_error(request: Request, error: Exception) -> JSONResponse:
    said = str(getattr(error, "msg", error))
    return _answer(request, 404 if "not found" in said.lower() or said.startswith("There is no") else 400, said)


def _answer(request: Request, status: int, said: str) -> JSONResponse:
    logger.warning("%s %s: %s", request.method, request.url.path, said)
    return JSONResponse({"detail": said}, status)
