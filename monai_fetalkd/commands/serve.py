"""Show an exported network on a page in the browser: upload a frame or a cine, see its planes or its head.

MODEL is a file of the command export; unless given, it is the student that comes with the package. The page, and what
is behind it for programs (POST /predict, GET /healthz, /metrics, /openapi.json), are for this machine: they listen on
its loopback address and nowhere else. Others reach them through a proxy that brings encryption along; then set a token.
It is the content of the file --token_file, or of the environment variable MONAI_FETALKD_TOKEN, and has to be sent as
bearer token; a browser asks for it as a password, of any user. What is uploaded is not stored.

For example

  python -m monai_fetalkd serve
  python -m monai_fetalkd serve student.int8.onnx
  curl --data-binary @frame.png http://localhost:8000/predict
"""

from __future__ import annotations

import argparse
import os
import socket
from contextlib import suppress
from pathlib import Path

from monai_fetalkd.commands.values import add_model, path
from monai_fetalkd.utils.requirements import require

__all__ = ["add_arguments", "run"]

_SECONDS_TO_SEND = 60  # a response, to a client that reads it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_model(parser)
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port of 127.0.0.1, 0 for any that is free (8000)"
    )
    parser.add_argument("--token_file", type=path, metavar="FILE", help="a file that holds the token alone")
    parser.add_argument(
        "--backend",
        choices=("auto", "onnxruntime", "openvino"),
        default="auto",
        help="what computes the network (auto)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads that it computes with (1)")
    parser.add_argument("--megabytes", type=int, default=64, metavar="N", help="largest upload (64)")
    parser.add_argument("--frames", type=int, default=1000, metavar="N", help="longest cine (1000)")
    parser.add_argument(
        "--seconds", type=float, default=60, metavar="S", help="longest time to upload, and again to recognise (60)"
    )
    parser.add_argument(
        "--requests_per_minute", type=int, default=600, metavar="N", help="most requests of one client (600)"
    )
    parser.add_argument(
        "--behind_proxy",
        action="store_true",
        help="tell clients apart by the X-Forwarded-For of a proxy on this machine, which has to set it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted.

    Args:
        arguments: what :func:`add_arguments` defines.

    Returns:
        0, when it was interrupted.

    Raises:
        ValueError: when the model is no exported network, a limit is not positive, the token is empty or too short, or
            the port is taken.
        ImportError: when a package of the server is not installed.
        OSError: when a file does not exist.
    """
    require("To start the server", "fastapi", "prometheus_client", "python_multipart", "uvicorn")
    import uvicorn

    from monai_fetalkd.deployment.runtime import SHIPPED_STUDENT, Recognizer, Segmenter, is_segmentation
    from monai_fetalkd.deployment.serve import Limits, create_app, timed_protocol

    limits = Limits(
        megabytes=arguments.megabytes,
        frames=arguments.frames,
        seconds=arguments.seconds,
        requests_per_minute=arguments.requests_per_minute,
    )
    token = _read_token(arguments.token_file)
    file = arguments.model or SHIPPED_STUDENT
    kind = Segmenter if is_segmentation(file) else Recognizer
    model = kind(file, backend=arguments.backend, threads=arguments.threads)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(model, limits, token),
            access_log=False,
            server_header=False,
            # without a proxy in between, a client could tell any address, and the rate would not hold
            proxy_headers=arguments.behind_proxy,
            forwarded_allow_ips="127.0.0.1",
            http=timed_protocol(2 * limits.seconds + _SECONDS_TO_SEND),
            ws="none",
            log_level="warning",
            limit_concurrency=8 * limits.under_way,
        )
    )
    with _listening(arguments.port) as listener, suppress(KeyboardInterrupt):
        port = listener.getsockname()[1]
        print(f"The page is at http://localhost:{port} ({model.backend}); end it with Ctrl+C.", flush=True)
        server.run(sockets=[listener])
    return 0


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "there is no such port"
        raise ValueError(f"The server cannot listen on port {port} ({reason}): choose another with --port.") from None


def _read_token(file: str | None) -> str | None:
    try:
        token = os.environ.get("MONAI_FETALKD_TOKEN") if file is None else Path(file).read_text("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"'{file}' is no text in UTF-8, so it holds no token.") from None
    if token is not None and not (len(token) >= 16 and token.isascii() and token.isprintable() and " " not in token):
        raise ValueError(
            "The token must be 16 visible ASCII characters or more, as `openssl rand -hex 32` prints them."
        )
    return token
