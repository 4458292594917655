"""PNG, JPEG, BMP, TIFF and GIF, through Pillow."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from .frame import MAX_PIXELS, Frame, FrameError, check_size
from .guard import guarded
from .levels import grey_levels, natural_range

__all__ = ["PictureSource"]


class PictureSource:
    """The pages of a picture.

    Colours become their luma; alpha is ignored, since what is under it is what was scanned; a turn noted by a camera
    (EXIF) is carried out. 16 bits are stretched from 65535 to 255, whatever values occur.

    Args:
        path: the file, for errors.
        stream: the same file, open.
        kind: Pillow's name of its format.
    """

    def __init__(self, path: str, stream: BinaryIO, kind: str) -> None:
        self._path = path
        with guarded(path, f"its {kind} data is damaged or cut short"):
            try:
                self._image = Image.open(stream, formats=[kind])
            except Image.DecompressionBombError:
                raise FrameError(path, f"its pixels are too many, {MAX_PIXELS:,} are the most") from None
            # the second picture in a JPEG file is a preview made by a camera
            self.count: int = 1 if kind == "JPEG" else getattr(self._image, "n_frames", 1)
        self._refused: dict[int, str] = {}

    def frame(self, number: int) -> Frame:
        """Decode one page."""
        # asked again, Pillow gives what it has of a damaged picture, without an error
        if number in self._refused:
            raise FrameError(self._path, self._refused[number])
        page = f"its page {number}" if self.count > 1 else "its picture"
        try:
            with guarded(self._path, f"{page} is damaged or cut short"):
                image = self._image
                if self.count > 1:
                    image.seek(number)
                check_size(self._path, image.height, image.width)
                ImageOps.exif_transpose(image, in_place=True)
                return Frame(_levels(self._path, image), number)
        except FrameError as error:
            self._refused[number] = error.reason
            raise


def _levels(path: str, image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        values = np.asarray(image)
        return grey_levels(path, values, *natural_range(values.min(), values.max(), fractional=True))
    if image.mode.startswith("I"):
        return grey_levels(path, np.asarray(image), 0, 65535)
    if image.mode == "P":
        image = image.convert("RGB")  # straight to grey, Pillow takes the table for the levels of some files
    return grey_levels(path, np.asarray(image if image.mode == "L" else image.convert("L")))
