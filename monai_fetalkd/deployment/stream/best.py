"""The best frame of each plane, which is what a sonographer keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, PngImagePlugin

from monai_fetalkd.utils.files import prepare_folder, told_if_unwritten, written_whole

from .answers import Answer

__all__ = ["BestFrame", "BestFrames", "is_plane"]

_REST = "other"  # the class of FETAL_PLANES_DB for frames that show none of its planes

_MARK = {"Software": "monai_fetalkd stream"}  # in the files, so that they are known among others


@dataclass(frozen=True)
class BestFrame:
    """The best frame of a plane so far.

    Args:
        number: index of the frame in its source.
        time_ms: milliseconds since the first frame, where the source tells.
        probability: of the plane in this frame alone.
        pixels: grey levels, uint8 of shape (height, width), as large as they came.
    """

    number: int
    time_ms: float | None
    probability: float
    pixels: np.ndarray


class BestFrames:
    """Keeps one frame a plane: the first of those with the largest probability.

    A frame is a candidate where it shows the plane by itself and the smoothed answer is that plane too; so neither a
    single outlier nor a frame that only follows better ones is kept. The class "Other" is no plane and has none.

    Attributes:
        frames: the best frame of each plane that was seen.
        files: the file of each, once they are written.
    """

    def __init__(self) -> None:
        self.frames: dict[str, BestFrame] = {}
        self.files: dict[str, Path] = {}

    def add(self, answer: Answer) -> None:
        """Look at one answer."""
        plane = answer.plane
        if (
            plane is None
            or not is_plane(plane)
            or plane != max(answer.probabilities, key=answer.probabilities.__getitem__)
        ):
            return
        probability = answer.probabilities[plane]
        if plane not in self.frames or probability > self.frames[plane].probability:
            pixels = np.rint(answer.frame.pixels).astype(np.uint8)
            self.frames[plane] = BestFrame(answer.number, answer.time_ms, probability, pixels)

    def prepare(self, folder: str | os.PathLike[str]) -> None:
        """Make sure that frames can be written later, and remove those of an earlier loop: of another patient, maybe.

        Only files that :meth:`write` has written are removed, whatever their names.

        Args:
            folder: where they will be written; it is made where it does not exist.

        Raises:
            OSError: when no file can be written there, or the disk is full.
        """
        prepare_folder(folder)
        for file in Path(folder).glob("*.png"):
            if _is_marked(file):
                file.unlink()

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the frames as 8-bit grey PNG, each whole or not at all.

        A file has the name of its plane, with characters that file names may not have as ``%2F``.

        Args:
            folder: where to; it is made where it does not exist. Frames of these planes from before are replaced.

        Raises:
            OSError: when a file cannot be written.
        """
        mark = PngImagePlugin.PngInfo()
        for key, value in _MARK.items():
            mark.add_text(key, value)
        for plane, frame in self.frames.items():
            file = Path(folder) / f"{quote(plane, safe=' ')}.png"
            with told_if_unwritten(file), written_whole(file) as temporary:
                Image.fromarray(frame.pixels).save(temporary, format="PNG", pnginfo=mark)
            self.files[plane] = file


def is_plane(class_name: str) -> bool:
    """Whether a class is a plane to look for, and not the rest.

    Example:
        >>> [name for name in ("Fetal brain", "Other") if is_plane(name)]
        ['Fetal brain']
    """
    return class_name.strip().casefold() != _REST


def _is_marked(file: Path) -> bool:
    try:
        with Image.open(file, formats=["PNG"]) as image:
            return _MARK.items() <= image.info.items()
    except (OSError, SyntaxError, ValueError):  # no picture, or a damaged one: not of ours
        return False
