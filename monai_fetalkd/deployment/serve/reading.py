"""What an upload holds, frame by frame, within the limits: the same for every kind of answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from monai_fetalkd.deployment.stream import Arrival
from monai_fetalkd.ultrasound.frames import FrameError
from monai_fetalkd.ultrasound.frames.frame import FrameSource
from monai_fetalkd.ultrasound.frames.kinds import HEAD, sniff, unsupported

from .limits import Limits, Refusal

__all__ = ["Opened", "check_answered", "opened_upload", "upload_arrivals"]

Opened = Callable[[str, float], AbstractContextManager[FrameSource]]
"""Opens a file that has to be read by a deadline."""

_KINDS = {"PNG", "JPEG", "BMP", "TIFF", "GIF", "DICOM"}  # volumes would be decompressed as a whole


@contextmanager
def opened_upload(path: str, limits: Limits, deadline: float, opened: Opened) -> Iterator[FrameSource]:
    """Open an upload, and refuse in a sentence what goes wrong while it is open.

    Args:
        path: the file; no refusal tells it.
        limits: how many frames it may hold.
        deadline: when it has to be read.
        opened: opens it, see :meth:`monai_fetalkd.ultrasound.frames.isolated.Decoder.open`.

    Yields:
        The file.

    Raises:
        Refusal: 413 when there are too many frames, 415 when it is neither a picture nor DICOM, 422 when it cannot be
            read, 504 when it takes too long.
    """
    _check_kind(path)
    try:
        with opened(path, deadline) as file:
            if file.count > limits.frames:
                raise Refusal(413, f"The upload holds {file.count} frames, {limits.frames} are the most.")
            yield file
    except FrameError as error:
        raise Refusal(422, _sentence(error.reason)) from None
    except TimeoutError:
        raise Refusal(504, "The upload takes too long to decode: send fewer or smaller frames.") from None


def upload_arrivals(file: FrameSource, deadline: float, clock: Callable[[], float]) -> Iterator[Arrival]:
    """The frames of an upload, for a stream, up to a deadline.

    Raises:
        Refusal: 504 once the clock is past the deadline.
    """
    for number in range(file.count):
        if clock() > deadline:
            raise Refusal(
                504, f"Only {number} of {file.count} frames were answered in time: send fewer or smaller ones."
            )
        yield Arrival(number, None, partial(file.frame, number))


def check_answered(file: FrameSource, answered: int) -> None:
    """Refuse an upload of which no frame could be answered.

    Raises:
        Refusal: 422.
        FrameError: why its first frame cannot be read.
    """
    if not answered:
        file.frame(0)  # says why
        raise Refusal(422, _sentence("none of its frames can be read"))


def _check_kind(path: str) -> None:
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise Refusal(422, _sentence("it is empty"))
    if sniff(head) not in _KINDS:
        reason = unsupported(head) or "it is neither a picture (PNG, JPEG, BMP, TIFF, GIF) nor DICOM"
        raise Refusal(415, _sentence(reason))


def _sentence(reason: str) -> str:
    return f"The upload cannot be read: {reason}."
