"""From an uploaded file to the head in each of its frames."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from monai_fetalkd.deployment.runtime import Segmenter
from monai_fetalkd.deployment.stream import HeadStream
from monai_fetalkd.ultrasound.frames.reader import open_frames

from .limits import Limits
from .pictures import make_head_picture
from .reading import Opened, check_answered, opened_upload, upload_arrivals
from .responses import Circumference, HeadFrame, Measurement, describe

__all__ = ["measure_file"]


def measure_file(
    segmenter: Segmenter,
    path: str,
    limits: Limits,
    start: float,
    with_pictures: bool = False,
    opened: Opened = lambda path, _: open_frames(path),
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Measure the head in all frames of a picture or a cine, as the command stream does.

    Args:
        segmenter: the network, of two classes: background and head.
        path: the file; no refusal tells it.
        limits: how many frames it may hold, and how long they may take.
        start: what the clock said at the last byte of the upload.
        with_pictures: whether to send pictures along.
        opened: opens a file, as for :func:`~monai_fetalkd.deployment.serve.recognition.recognize_file`.
        clock: the time in seconds.

    Returns:
        The answer.

    Raises:
        Refusal: 413 when there are too many frames, 415 when it is neither a picture nor DICOM, 422 when no frame can
            be read, 504 when it takes too long.
        ValueError: when the network has other than two classes.
    """
    deadline = start + limits.seconds
    answers, pictures = [], []
    with opened_upload(path, limits, deadline, opened) as file:
        for answer in HeadStream(segmenter, upload_arrivals(file, deadline, clock)):
            answers.append(HeadFrame.model_validate(answer.to_dict()))
            if with_pictures:
                pictures.append(make_head_picture(answer))
        check_answered(file, len(answers))
        undecodable = sorted(set(range(file.count)) - {answer.frame for answer in answers})
    return Measurement(
        classes=list(segmenter.class_names),
        frames=answers,
        undecodable=undecodable,
        circumference=_over_frames(answers),
        model=describe(segmenter),
        pictures=pictures,
        ms=round(1000 * (clock() - start), 3),
    )


def _over_frames(answers: Sequence[HeadFrame]) -> Circumference | None:
    found = [(answer.circumference, answer.unit) for answer in answers if answer.circumference is not None]
    if len({unit for _, unit in found}) != 1:
        return None
    values = [value for value, _ in found]
    return Circumference(
        median=round(statistics.median(values), 2),
        smallest=min(values),
        largest=max(values),
        unit=found[0][1],
        frames=len(values),
    )
