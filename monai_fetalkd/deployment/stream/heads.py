"""Fetal heads measured in frames as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw

from monai_fetalkd.ultrasound.biometry import Ellipse, fit_ellipse, head_ellipse
from monai_fetalkd.ultrasound.frames import Frame

from .arrivals import Arrival
from .loop import FrameLoop
from .overlay import captioned

__all__ = ["FrameSegmenter", "HeadAnswer", "HeadOverlay", "HeadStream"]

_OUTLINE = "#ffd400"


class FrameSegmenter(Protocol):
    """What a stream asks of a :class:`monai_fetalkd.deployment.runtime.Segmenter`."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The number of the class of each pixel."""


@dataclass(frozen=True)
class HeadAnswer:
    """The head in one frame.

    Args:
        number: index of the frame in its source.
        time_ms: milliseconds since the first frame, where the source tells.
        ellipse: fitted to the mask, in pixels of the frame; None where there is no head.
        circumference: its length; None where there is no head.
        unit: ``"mm"``, or ``"pixels"`` where the file does not tell the size of a pixel.
        ms: milliseconds from the frame as it came to the answer: decoding, inference and fit.
        dropped: how many frames before this one have been dropped.
        frame: the frame itself.
        mask: True where the head is.
    """

    number: int
    time_ms: float | None
    ellipse: Ellipse | None
    circumference: float | None
    unit: str
    ms: float
    dropped: int
    frame: Frame = field(repr=False, compare=False)
    mask: np.ndarray = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """The answer for people: "HC 174.2 mm" or "no head"."""
        return "no head" if self.circumference is None else f"HC {self.circumference:.1f} {self.unit}"

    def to_dict(self) -> dict[str, Any]:
        """What a JSON line holds: all but the pixels. Centre, axes and angle are those of the ellipse in pixels."""
        ellipse = self.ellipse and {
            "center": [round(value, 2) for value in self.ellipse.center],
            "semi_axes": [round(value, 2) for value in self.ellipse.semi_axes],
            "angle": round(self.ellipse.angle, 4),
        }
        return {
            "frame": self.number,
            "time_ms": None if self.time_ms is None else round(self.time_ms, 3),
            "circumference": None if self.circumference is None else round(self.circumference, 2),
            "unit": self.unit,
            "ellipse": ellipse,
            "ms": round(self.ms, 3),
            "dropped": self.dropped,
        }


class HeadStream(FrameLoop[HeadAnswer]):
    """Measure the head in the frames of a source, each for itself, to be iterated over once.

    Args:
        segmenter: gives the mask of a frame, with two classes: background and head.
        source: the frames.
        live: whether the latest frame wins, see :class:`Latest`; else every frame is answered.

    Raises:
        ValueError: when the segmenter has more classes.

    Example:
        >>> class Bright:
        ...     class_names = ("background", "head")
        ...     def __call__(self, pixels):
        ...         return (pixels > 100).astype(np.uint8)
        >>> rows, columns = np.mgrid[:80, :80]
        >>> frame = Frame(255.0 * ((rows - 40) ** 2 + (columns - 40) ** 2 < 900), pixel_size=(0.5, 0.5))
        >>> [answer.text for answer in HeadStream(Bright(), [Arrival(0, None, lambda: frame)])]
        ['HC 94.0 mm']
    """

    def __init__(self, segmenter: FrameSegmenter, source: Iterable[Arrival], live: bool = False) -> None:
        if len(segmenter.class_names) != 2:
            raise ValueError(
                f"A head is measured by a network of two classes, not of {len(segmenter.class_names)} "
                f"({', '.join(segmenter.class_names)})."
            )
        super().__init__(source, live)
        self._segmenter = segmenter

    def _answer(self, arrival: Arrival, frame: Frame, start: float) -> HeadAnswer:
        mask = self._segmenter(frame.pixels) == 1
        ellipse = head_ellipse(mask)
        return HeadAnswer(
            number=arrival.number,
            time_ms=arrival.time if frame.time is None else frame.time,
            ellipse=ellipse,
            circumference=None if ellipse is None else _circumference(ellipse, frame.pixel_size),
            unit="pixels" if frame.pixel_size is None else "mm",
            ms=1000 * (time.perf_counter() - start),
            dropped=self.dropped,
            frame=frame,
            mask=mask,
        )


def _circumference(ellipse: Ellipse, pixel_size: tuple[float, float] | None) -> float:
    if pixel_size is None:
        return ellipse.circumference
    return fit_ellipse(ellipse.points() * pixel_size).circumference  # pixels need not be square


class HeadOverlay:
    """Draws the mask and the ellipse over a frame, and the circumference under it."""

    def draw(self, answer: HeadAnswer) -> Image.Image:
        """One frame with its answer.

        Args:
            answer: the answer, with its frame and mask.

        Returns:
            An RGB picture as wide as the frame, and higher by a strip.
        """
        picture, _ = captioned(answer.frame.pixels, answer.text)
        shade = Image.fromarray(answer.mask.astype(np.uint8) * 50)
        picture.paste(Image.new("RGB", shade.size, _OUTLINE), (0, 0), shade)
        if answer.ellipse is not None:
            outline = [(column, row) for row, column in answer.ellipse.points().tolist()]
            ImageDraw.Draw(picture).line([*outline, outline[0]], _OUTLINE, width=max(1, picture.width // 400))
        return picture
