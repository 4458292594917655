"""The server: the page and what it asks for."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from queue import LifoQueue
from typing import IO, Annotated, Any

from fastapi import FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBasic, HTTPBearer

from monai_fetalkd import __version__
from monai_fetalkd.deployment.runtime import Recognizer, Segmenter
from monai_fetalkd.ultrasound.frames.isolated import Decoder

from .limits import Limits, Refusal, Slots
from .metrics import Metrics
from .middleware import Guard
from .reading import Upload
from .responses import Failure, Health, Measurement, Prediction, describe
from .services import Service, service_of
from .upload import named, receive

__all__ = ["create_app"]

_DECODERS = 4
_SECONDS_A_FRAME = 10  # the largest frame that is read takes two
_MEMORY = 800_000_000  # bytes of a decoder; the largest frame that is read takes half of it

_FILE = {"type": "string", "format": "binary", "description": "A picture (PNG, JPEG, BMP, TIFF, GIF) or a DICOM file."}
_UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": _FILE},
                "required": ["file"],
                "additionalProperties": False,
            }
        },
        "application/octet-stream": {"schema": _FILE},
    },
}
_FAILURES = {
    400: "Another host name than that of this machine, or an upload that has ended early.",
    401: "No token, or not the right one.",
    403: "Asked for by a page of another site.",
    408: "The upload took too long.",
    413: "The upload is too large, or has too many frames.",
    415: "The upload is neither a picture nor DICOM.",
    422: "The upload cannot be read.",
    429: "Too many requests of this client; see Retry-After.",
    500: "The server has failed.",
    503: "Too many uploads are under way; see Retry-After.",
    504: "The frames took too long.",
}


def create_app(model: Recognizer | Segmenter, limits: Limits | None = None, token: str | None = None) -> FastAPI:
    """Make the server of a model.

    ==================== ==============================================================
    ``GET /``            the page
    ``POST /predict``    a picture or a cine, as it is or in a form, to its answers
    ``GET /healthz``     whether the server answers
    ``GET /metrics``     its counters, for Prometheus
    ``GET /openapi.json`` all of this for programs
    ==================== ==============================================================

    Uploads are read by up to four processes, which end when a file takes too long or too much memory, and recognised by
    as many threads. An upload is in a private temporary file while it is read, and nowhere after.

    Args:
        model: what recognises planes, or marks the fetal head.
        limits: what clients may ask for; the defaults of :class:`Limits` where None.
        token: what clients must show, see :class:`~monai_fetalkd.deployment.serve.middleware.Guard`; None for nothing,
            and then clients must address the server as ``localhost``.

    Returns:
        An ASGI application.

    Raises:
        ValueError: when a segmenter has other classes than background and head.
    """
    service = service_of(model)
    limits = limits or Limits()
    metrics, slots = Metrics(), Slots(limits.under_way)
    workers = ThreadPoolExecutor(max_workers=_DECODERS, thread_name_prefix="recognizer")
    decoders: LifoQueue[Decoder] = LifoQueue()  # the one that was used last is asked first: the others need not start
    for _ in range(_DECODERS):
        decoders.put(Decoder(_SECONDS_A_FRAME, _MEMORY + 2_000_000 * limits.megabytes))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        workers.shutdown(cancel_futures=True)
        while not decoders.empty():
            decoders.get().close()

    app = FastAPI(
        title="monai_fetalkd",
        summary=f"{service.lead} For research, not a medical device.",
        version=__version__,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={RequestValidationError: _refuse_invalid},
    )
    app.add_middleware(Guard, metrics=metrics, per_minute=limits.requests_per_minute, token=token)
    secured = [] if token is None else [Security(HTTPBearer(auto_error=False)), Security(HTTPBasic(auto_error=False))]

    @app.post(
        "/predict",
        response_model=service.response,
        responses=_failures(*(_FAILURES if token else _FAILURES.keys() - {401})),
        openapi_extra={"requestBody": _UPLOAD},
        dependencies=secured,
    )
    async def predict(
        request: Request,
        pictures: Annotated[bool, Query(description="Whether to send the best frames along, to look at.")] = False,
    ) -> Prediction | Measurement:
        """Answer a frame, or each frame of a cine; nothing is stored."""
        with slots.taken():
            body = await receive(request, limits)
            start = time.perf_counter()
            loop = asyncio.get_running_loop()
            prediction = await loop.run_in_executor(workers, work, body, start, pictures)
        for frame in prediction.frames:
            metrics.frames.labels(service.outcome(frame)).inc()
        metrics.frames.labels("undecodable").inc(len(prediction.undecodable))
        metrics.seconds.observe(time.perf_counter() - start)
        return prediction

    def work(body: IO[bytes], start: float, pictures: bool) -> Prediction | Measurement:
        decoder = decoders.get()
        try:
            with body, named(body) as path:
                return service.answer(Upload(path, limits, start, decoder.open), pictures)
        finally:
            decoders.put(decoder)

    @app.get("/healthz", responses=_failures(400, 403))
    async def healthz() -> Health:
        """Tell that the server answers."""
        return Health(version=__version__)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {metrics.content_type: {"schema": {"type": "string"}}}},
            **_failures(*(400, 401, 403, 429) if token else (400, 403, 429)),
        },
        dependencies=secured,
    )
    async def counters() -> Response:
        """Tell the counters of the server, in the text format of Prometheus."""
        return Response(metrics.text(), media_type=metrics.content_type)

    _add_page(app, limits, service, str(describe(model)))
    return app


def _add_page(app: FastAPI, limits: Limits, service: Service, model: str) -> None:
    folder = files("monai_fetalkd.deployment.serve") / "page"
    values = {
        "megabytes": str(limits.megabytes),
        "frames": f"{limits.frames:,}",
        "model": html.escape(model),
        "title": service.title,
        "lead": service.lead,
        "answer": (folder / f"{service.page}.html").read_text(encoding="utf-8"),
    }
    for path, name, kind in (
        ("/", "page.html", "text/html"),
        ("/page.css", "page.css", "text/css"),
        ("/page.js", f"{service.page}.js", "text/javascript"),
        ("/upload.js", "upload.js", "text/javascript"),
    ):
        text = (folder / name).read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"{{{{{key}}}}}", value)
        response = Response(text, media_type=kind)
        app.add_api_route(path, lambda response=response: response, include_in_schema=False)


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failure, "description": _FAILURES[status]} for status in sorted(statuses)}


async def _refuse_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    told = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
    raise Refusal(422, f"The request is not valid: {told}.")
