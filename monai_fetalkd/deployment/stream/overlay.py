"""Answers drawn onto their frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from monai_fetalkd.evaluation.timeline import NO_PLANE, plane_colors

from .answers import Answer

__all__ = ["Overlay", "captioned"]


class Overlay:
    """Draws the plane and its probability under a frame: a strip, so that no pixel of the frame is covered.

    The bar is as long as the smoothed probability; each plane has its colour and is named, and where none is decided
    on the bar is a grey outline, so that nothing hangs on telling colours apart.

    Args:
        class_names: names of the classes.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._colors = plane_colors(class_names)

    def draw(self, answer: Answer) -> Image.Image:
        """One frame with its answer.

        Args:
            answer: the answer, with its frame.

        Returns:
            An RGB picture as wide as the frame, and higher by the strip.
        """
        picture, line = captioned(answer.frame.pixels, answer.text, lines=2)
        pen = ImageDraw.Draw(picture)
        width, height = picture.width, picture.height - 2 * line
        bar = (
            line // 4,
            height + 1.25 * line,
            line // 4 + answer.probability * (width - line // 2),
            height + 1.75 * line,
        )
        if answer.plane is None:
            pen.rectangle(bar, outline=NO_PLANE)
        else:
            pen.rectangle(bar, fill=self._colors[answer.plane])
        return picture


def captioned(pixels: np.ndarray, text: str, lines: int = 1) -> tuple[Image.Image, int]:
    """A frame with a line of text under it, and room for further lines.

    Args:
        pixels: grey levels of the frame.
        text: what to write.
        lines: lines of the strip.

    Returns:
        An RGB picture as wide as the frame, and the height of a line in pixels.
    """
    frame = Image.fromarray(np.rint(pixels).astype(np.uint8))
    width, height = frame.size
    line = max(10, width // 24)
    picture = Image.new("RGB", (width, height + lines * line))
    picture.paste(frame)
    font = ImageFont.load_default(size=0.75 * line)
    ImageDraw.Draw(picture).text((line // 4, height + line // 2), text, "white", font, anchor="lm")
    return picture, line
