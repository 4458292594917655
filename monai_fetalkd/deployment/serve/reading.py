"""What an upload holds, frame by frame, within the limits: the same for every kind of answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from monai_fetalkd.deployment.stream import Arrival
from monai_fetalkd.ultrasound.frames import FrameError
from monai_fetalkd.ultrasound.frames.frame import FrameSource
from monai_fetalkd.ultrasound.frames.kinds import HEAD, sniff, unsupported
from monai_fetalkd.ultrasound.frames.reader import open_frames

from .limits import Limits, Refusal

__all__ = ["Upload", "undecodable"]

_KINDS = {"PNG", "JPEG", "BMP", "TIFF", "GIF", "DICOM"}
_VOLUMES = ("NIfTI", "MetaImage")  # they would be decompressed as a whole


@dataclass(frozen=True)
class Upload:
    """A picture or a cine that has arrived, and has to be answered by a deadline.

    Args:
        path: the file; no refusal tells it.
        limits: how many frames it may hold, and how long they may take.
        start: what the clock said at its last byte.
        opener: opens a file that has to be read by a deadline, see
            :meth:`monai_fetalkd.ultrasound.frames.isolated.Decoder.open`; in this process and without a deadline unless
            given.
        clock: the time in seconds.
    """

    path: str
    limits: Limits
    start: float
    opener: Callable[[str, float], AbstractContextManager[FrameSource]] = lambda path, _: open_frames(path)
    clock: Callable[[], float] = time.perf_counter

    @contextmanager
    def opened(self) -> Iterator[FrameSource]:
        """Open the file, and refuse in a sentence what goes wrong while it is open.

        Yields:
            The file.

        Raises:
            Refusal: 413 when there are too many frames, 415 when it is neither a picture nor DICOM, 422 when it cannot
                be read, 504 when it takes too long.
        """
        _check_kind(self.path)
        try:
            with self.opener(self.path, self._deadline) as file:
                if file.count > self.limits.frames:
                    raise Refusal(413, f"The upload holds {file.count} frames, {self.limits.frames} are the most.")
                yield file
        except FrameError as error:
            raise Refusal(422, _sentence(error.reason)) from None
        except TimeoutError:
            raise Refusal(504, "The upload takes too long to decode: send fewer or smaller frames.") from None

    def arrivals(self, file: FrameSource) -> Iterator[Arrival]:
        """The frames, for a stream, up to the deadline.

        Raises:
            Refusal: 504 once the clock is past the deadline.
        """
        for number in range(file.count):
            if self.clock() > self._deadline:
                raise Refusal(
                    504, f"Only {number} of {file.count} frames were answered in time: send fewer or smaller ones."
                )
            yield Arrival(number, None, partial(file.frame, number))

    def ms(self) -> float:
        """Milliseconds since its last byte."""
        return round(1000 * (self.clock() - self.start), 3)

    @property
    def _deadline(self) -> float:
        return self.start + self.limits.seconds


def undecodable(file: FrameSource, answered: Collection[int]) -> list[int]:
    """Numbers of the frames that have no answer, as they could not be read.

    Raises:
        Refusal: 422 where not one frame of the upload was answered.
        FrameError: why its first frame cannot be read.
    """
    if not answered:
        file.frame(0)  # says why
        raise Refusal(422, _sentence("none of its frames can be read"))
    return sorted(set(range(file.count)).difference(answered))


def _check_kind(path: str) -> None:
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise Refusal(422, _sentence("it is empty"))
    kind = sniff(head)
    if kind in _VOLUMES:
        raise Refusal(415, _sentence(f"volumes ({' and '.join(_VOLUMES)}) and gzip files are not supported here"))
    if kind not in _KINDS:
        reason = unsupported(head) or "it is neither a picture (PNG, JPEG, BMP, TIFF, GIF) nor DICOM"
        raise Refusal(415, _sentence(reason))


def _sentence(reason: str) -> str:
    return f"The upload cannot be read: {reason}."
