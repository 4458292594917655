"""From an uploaded file to the answer for each of its frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import groupby

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.deployment.stream import Arrival, BestFrames, Stream, is_plane
from monai_fetalkd.ultrasound.frames import FrameError
from monai_fetalkd.ultrasound.frames.frame import FrameSource
from monai_fetalkd.ultrasound.frames.kinds import HEAD, sniff
from monai_fetalkd.ultrasound.frames.reader import open_frames

from .limits import Limits, Refusal
from .pictures import make_picture
from .responses import Best, FrameAnswer, Model, Picture, Prediction, Segment

__all__ = ["describe", "recognize_file"]

_KINDS = {"PNG", "JPEG", "BMP", "TIFF", "GIF", "DICOM"}  # volumes would be decompressed as a whole


def describe(recognizer: Recognizer) -> Model:
    """Which model it is that answers."""
    told = recognizer.metadata
    return Model(
        name=recognizer.name,
        version=told.get("version"),
        exported=told.get("created"),
        checkpoint=told.get("checkpoint_sha256"),
        precision=told.get("precision"),
        runtime=recognizer.backend,
        attention_grid=recognizer.attention_grid,
    )


def recognize_file(
    recognizer: Recognizer,
    path: str,
    limits: Limits,
    start: float,
    with_pictures: bool = False,
    opened: Callable[[str, float], AbstractContextManager[FrameSource]] = lambda path, _: open_frames(path),
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
    _check_kind(path)
    try:
        deadline = start + limits.seconds
        with opened(path, deadline) as file:
            if file.count > limits.frames:
                raise Refusal(413, f"The upload holds {file.count} frames, {limits.frames} are the most.")
            answers, best, pictures = _recognize(recognizer, file, deadline, clock, with_pictures)
            if not answers:
                file.frame(0)  # says why
                raise Refusal(422, _sentence("none of its frames can be read"))
            if with_pictures:
                pictures |= _large_pictures(recognizer, file, answers, best)
    except FrameError as error:
        raise Refusal(422, _sentence(error.reason)) from None
    except TimeoutError:
        raise Refusal(504, "The upload takes too long to decode: send fewer or smaller frames.") from None
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


def _check_kind(path: str) -> None:
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise Refusal(422, _sentence("it is empty"))
    if sniff(head) not in _KINDS:
        raise Refusal(415, _sentence("it is neither a picture (PNG, JPEG, BMP, TIFF, GIF) nor DICOM"))


def _recognize(
    recognizer: Recognizer, file: FrameSource, deadline: float, clock: Callable[[], float], with_pictures: bool
) -> tuple[list[FrameAnswer], list[Best], dict[int, Picture]]:
    answers, kept, pictures = [], BestFrames(), {}
    for answer in Stream(recognizer, _arrivals(file, deadline, clock), threshold=recognizer.threshold):
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


def _arrivals(file: FrameSource, deadline: float, clock: Callable[[], float]) -> Iterator[Arrival]:
    for number in range(file.count):
        if clock() > deadline:
            raise Refusal(
                504, f"Only {number} of {file.count} frames were recognised in time: send fewer or smaller ones."
            )
        yield Arrival(number, None, partial(file.frame, number))


def _timeline(answers: list[FrameAnswer]) -> list[Segment]:
    segments = []
    for plane, group in groupby(answers, key=lambda answer: answer.plane):
        frames = [answer.frame for answer in group]
        segments.append(Segment(plane=plane, first=frames[0], last=frames[-1]))
    return segments


def _sentence(reason: str) -> str:
    return f"The upload cannot be read: {reason}."
