"""What the server does with a model of each kind: how it answers, with which page, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from monai_fetalkd.deployment.runtime import Recognizer, Segmenter

from .measuring import measure_upload
from .recognition import recognize_upload
from .responses import FrameAnswer, HeadFrame, Measurement, Prediction

__all__ = ["Service", "service_of"]


@dataclass(frozen=True)
class Service:
    """How a server answers.

    Args:
        answer: from an upload, and whether pictures are wanted, to the answer.
        response: what it answers.
        page: name of its part of the page, and of its script.
        title: of the page.
        lead: what it tells, in a sentence.
        outcome: what came of a frame, for the counters.
    """

    answer: Callable[..., Prediction | Measurement]
    response: type[Prediction] | type[Measurement]
    page: str
    title: str
    lead: str
    outcome: Callable[..., str]


def service_of(model: Recognizer | Segmenter) -> Service:
    """How a server answers with this model.

    Raises:
        ValueError: when a segmenter has other than two classes: background and head.
    """
    if not isinstance(model, Segmenter):
        return Service(
            partial(recognize_upload, model),
            Prediction,
            "planes",
            "Fetal planes",
            "Which standard plane a frame shows, and which frames of a cine show one best.",
            _plane_outcome,
        )
    if len(model.class_names) != 2:
        raise ValueError(
            f"The page measures fetal heads and needs a network of two classes, not of {len(model.class_names)} "
            f"({', '.join(model.class_names)})."
        )
    return Service(
        partial(measure_upload, model),
        Measurement,
        "heads",
        "Fetal head",
        "The fetal head in a frame, or in each frame of a cine, and its circumference.",
        _head_outcome,
    )


def _plane_outcome(frame: FrameAnswer) -> str:
    return "no_plane" if frame.plane is None else "plane"


def _head_outcome(frame: HeadFrame) -> str:
    return "no_head" if frame.circumference is None else "head"
