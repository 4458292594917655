"""From an upload to the answer for each of its frames."""

from __future__ import annotations

from itertools import groupby

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.deployment.stream import BestFrames, Stream, is_plane
from monai_fetalkd.ultrasound.frames.frame import FrameSource

from .pictures import make_picture
from .reading import Upload, undecodable
from .responses import Best, FrameAnswer, Picture, Prediction, Segment, describe

__all__ = ["recognize_upload"]


def recognize_upload(recognizer: Recognizer, upload: Upload, with_pictures: bool = False) -> Prediction:
    """Recognise all frames of a picture or a cine, as the command stream does: smoothed, with the model's threshold.

    Args:
        recognizer: the network.
        upload: the picture or cine.
        with_pictures: whether to send pictures along, see
            :class:`~monai_fetalkd.deployment.serve.responses.Prediction`.

    Returns:
        The answer.

    Raises:
        Refusal: 413 when there are too many frames, 415 when it is neither a picture nor DICOM, 422 when no frame can
            be read, 504 when it takes too long.
    """
    with upload.opened() as file:
        answers, best, pictures = _recognize(recognizer, upload, file, with_pictures)
        missing = undecodable(file, [answer.frame for answer in answers])
        if with_pictures:
            pictures |= _large_pictures(recognizer, file, answers, best)
    found = {one.plane for one in best}
    return Prediction(
        classes=list(recognizer.class_names),
        threshold=recognizer.threshold,
        frames=answers,
        undecodable=missing,
        timeline=_timeline(answers),
        best=best,
        missing=[name for name in recognizer.class_names if is_plane(name) and name not in found],
        model=describe(recognizer),
        pictures=list(pictures.values()),
        ms=upload.ms(),
    )


def _recognize(
    recognizer: Recognizer, upload: Upload, file: FrameSource, with_pictures: bool
) -> tuple[list[FrameAnswer], list[Best], dict[int, Picture]]:
    answers, kept, pictures = [], BestFrames(), {}
    for answer in Stream(recognizer, upload.arrivals(file), threshold=recognizer.threshold):
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
