"""From an upload to the head in each of its frames."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from monai_fetalkd.deployment.runtime import Segmenter
from monai_fetalkd.deployment.stream import HeadStream

from .pictures import make_head_picture
from .reading import Upload, undecodable
from .responses import Circumference, HeadFrame, Measurement, describe

__all__ = ["measure_upload"]


def measure_upload(segmenter: Segmenter, upload: Upload, with_pictures: bool = False) -> Measurement:
    """Measure the head in all frames of a picture or a cine, as the command stream does.

    Args:
        segmenter: the network, of two classes: background and head.
        upload: the picture or cine.
        with_pictures: whether to send pictures along.

    Returns:
        The answer.

    Raises:
        Refusal: 413 when there are too many frames, 415 when it is neither a picture nor DICOM, 422 when no frame can
            be read, 504 when it takes too long.
        ValueError: when the network has other than two classes.
    """
    answers, pictures = [], []
    with upload.opened() as file:
        for answer in HeadStream(segmenter, upload.arrivals(file)):
            answers.append(HeadFrame.model_validate(answer.to_dict()))
            if with_pictures:
                pictures.append(make_head_picture(answer))
        missing = undecodable(file, [answer.frame for answer in answers])
    return Measurement(
        classes=list(segmenter.class_names),
        frames=answers,
        undecodable=missing,
        circumference=_over_frames(answers),
        model=describe(segmenter),
        pictures=pictures,
        ms=upload.ms(),
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
