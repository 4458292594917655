"""From an uploaded file to the answer for each of its frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.deployment.stream import BestFrames, Stream, is_plane
from monai_fetalkd.ultrasound.frames.frame import FrameSource
from monai_fetalkd.ultrasound.frames.reader import open_frames

from .limits import Limits
from .pictures import make_picture
from .reading import Opened, check_answered, opened_upload, upload_arrivals
from .responses import Best, FrameAnswer, Picture, Prediction, Segment, describe

__all__ = ["recognize_file"]


def recognize_file(
    recognizer: Recognizer,
    path: str,
    limits: Limits,
    start: float,
    with_pictures: bool = False,
    opened: Opened = lambda path, _: open_frames(path),
    clock: Callable[[], float] = time.perf_counter,
) -> Prediction:
    """Recognise all frames of a picture or a cine, as the command stream does: smoothed, with the model's threshold.

    Args:
        recognizer: the network.
        path: the file; no refusal tells it.
        limits: how many frames it may hold, and how long they may take.
        start: what the clock said at the last byte of the upload.
        with_pictures: whether to send pictures along, see
            :class:`~monai_fetalkd.deployment.serve.responses.Prediction`.
        opened: opens a file that has to be read by a deadline, see
            :meth:`monai_fetalkd.ultrasound.frames.isolated.Decoder.open`; in this process and without a deadline unless
            given.
        clock: the time in seconds.

    Returns:
        The answer.

    Raises:
        Refusal: 413 when there are too many frames, 415 when it is neither a picture nor DICOM, 422 when no frame can
            be read, 504 when it takes too long.
    """
    deadline = start + limits.seconds
    with opened_upload(path, limits, deadline, opened) as file:
        answers, best, pictures = _recognize(recognizer, file, deadline, clock, with_pictures)
        check_answered(file, len(answers))
        if with_pictures:
            pictures |= _large_pictures(recognizer, file, answers, best)
    found = {one.plane for one in best}
    return Prediction(
        classes=list(recognizer.class_names),
        threshold=recognizer.threshold,
        frames=answers,
        undecodable=sorted(set(range(file.count)) - {answer.frame for answer in answers}),
        timeline=_timeline(answers),
        best=best,
        missing=[name for name in recognizer.class_names if is_plane(name) and name not in found],
        model=describe(recognizer),
        pictures=list(pictures.values()),
        ms=round(1000 * (clock() - start), 3),
    )


def _recognize(
    recognizer: Recognizer, file: FrameSource, deadline: float, clock: Callable[[], float], with_pictures: bool
) -> tuple[list[FrameAnswer], list[Best], dict[int, Picture]]:
    answers, kept, pictures = [], BestFrames(), {}
    for answer in Stream(recognizer, upload_arrivals(file, deadline, clock), threshold=recognizer.threshold):
        kept.add(answer)
        answers.append(FrameAnswer.model_validate(answer.to_dict()))
        if with_pictures:
            pictures[answer.number] = make_picture(recognizer, answer.frame, is_first=False)
    found = [(name, kept.frames[name]) for name in recognizer.class_names if name in kept.frames]
    best = [Best(plane=name, frame=frame.number, probability=round(frame.probability, 6)) for name, frame in found]
    return answers, best, pictures


def _large_pictures(
    recognizer: Recognizer, file: FrameSource, answers: list[FrameAnswer], best: list[Best]
) -> dict[int, Picture]:
    """Of the frames to be looked at first."""
    surest = max(answers, key=lambda answer: answer.probability)
    numbers = {found.frame for found in best} or {surest.frame}
    return {number: make_picture(recognizer, file.frame(number), is_first=True) for number in numbers}


def _timeline(answers: list[FrameAnswer]) -> list[Segment]:
    segments = []
    for plane, group in groupby(answers, key=lambda answer: answer.plane):
        frames = [answer.frame for answer in group]
        segments.append(Segment(plane=plane, first=frames[0], last=frames[-1]))
    return segments
