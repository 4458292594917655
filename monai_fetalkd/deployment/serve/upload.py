"""The bytes of a request's body, up to a limit, and as a file for those who need one."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from .limits import Limits, Refusal

__all__ = ["named", "receive"]

_ONE_FILE = "The form must hold one file, in the field 'file', and nothing else."
_IN_MEMORY = 1_000_000  # bytes; what is larger goes to a temporary file without a name


async def receive(request: Request, limits: Limits) -> IO[bytes]:
    """Read the file in a request: the field ``file`` of a form, or the whole body.

    Its name and its media type are ignored. Reading stops at the first byte beyond the limit.

    Args:
        request: the request; its body has not been read.
        limits: how large it may be and how long it may take.

    Returns:
        The file, at its start; closing it deletes it.

    Raises:
        Refusal: 400 when it ends early, 408 when it arrives too slowly, 413 when it is too large, 422 when the form
            holds anything but one file.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                return await _from_form(request, limits)
            return await _from_body(request, limits)
    except TimeoutError:
        raise Refusal(408, f"The upload took longer than {limits.seconds:g} seconds.") from None
    except ClientDisconnect:
        raise Refusal(400, "The upload has ended early.") from None


@contextmanager
def named(upload: IO[bytes]) -> Iterator[str]:
    """Give an upload a name for a while, since frames are read by their path.

    Yields:
        Path of a file of the same content in a private temporary folder, both deleted at the end. It bears nothing of
        the client's. It is closed, as on Windows nobody else could open it.
    """
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        path = Path(folder) / "frames"
        with path.open("wb") as file:
            shutil.copyfileobj(upload, file)
        yield str(path)


async def _from_form(request: Request, limits: Limits) -> IO[bytes]:
    parser = MultiPartParser(request.headers, _limited(request, limits), max_files=1, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            raise Refusal(422, _ONE_FILE) from None
        raise Refusal(422, f"The form cannot be read: {error.message.rstrip('.')}.") from None
    except (ValueError, LookupError):  # of its character set, above all
        raise Refusal(422, "The form cannot be read: its content type is not understood.") from None
    file = form.get("file")
    if not isinstance(file, UploadFile):
        await form.close()
        raise Refusal(422, _ONE_FILE)
    return file.file


async def _from_body(request: Request, limits: Limits) -> IO[bytes]:
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115, whoever reads it closes it
    try:
        async for chunk in _limited(request, limits):
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    most = limits.megabytes * 1_000_000
    refusal = Refusal(413, f"The upload is larger than {limits.megabytes} MB.")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise refusal
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > most:
            raise refusal
        yield chunk
