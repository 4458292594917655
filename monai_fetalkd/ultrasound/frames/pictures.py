"""PNG, JPEG, BMP, TIFF and GIF, through Pillow."""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from monai_fetalkd.utils.machine import machine_error

from .codestream import Coding, inspect_codestream
from .frame import MAX_BYTES, MAX_PIXELS, Frame, FrameError, check_scans, check_size
from .guard import guarded
from .levels import grey_levels
from .recent import Decoded, recall
from .tiff import find_pages, grey_samples, open_page

__all__ = ["PictureSource"]

_SCAN = b"\xff\xda"
_ANIMATED = ("GIF", "PNG")


class PictureSource:
    """The pages of a picture.

    Colours become their luma; alpha is ignored, since what is under it is what was scanned; a turn noted by a camera
    (EXIF) is carried out. 16 bits are stretched from 65535 to 255, whatever values occur. The frames of a GIF or an
    animated PNG build upon each other: they are all decoded for the first, and those of the last file are kept.

    Args:
        path: the file, for errors.
        stream: the same file, open.
        kind: Pillow's name of its format.
    """

    def __init__(self, path: str, stream: BinaryIO, kind: str) -> None:
        self._path, self._stream, self._kind = path, stream, kind
        self._refused: dict[int, FrameError] = {}
        with guarded(path, f"its {kind} data is damaged or cut short"):
            self._pages = find_pages(path, stream) if kind == "TIFF" else []
            if kind == "JPEG":
                check_scans(path, stream.read().count(_SCAN))
            self._image = self._open(0)
            self.count: int = self._count()

    def _open(self, number: int) -> Image.Image:
        self._stream.seek(0)
        try:
            if self._kind == "TIFF":
                return open_page(self._path, self._stream, self._pages[number])
            return Image.open(self._stream, formats=[self._kind])
        except Image.DecompressionBombError:
            raise FrameError(self._path, f"its pixels are too many, {MAX_PIXELS:,} are the most") from None
        except Image.UnidentifiedImageError:
            self._stream.seek(0)
            if self._kind != "JPEG":
                raise
            codestream = inspect_codestream(self._stream.read())
            if codestream.coding is Coding.JPEG and codestream.bits == 8:
                raise
            what = f"{codestream.coding.value} of {codestream.bits} bits"
            raise FrameError(self._path, f"{what} is not supported in a file of its own: convert it to PNG") from None

    def _count(self) -> int:
        if self._kind == "JPEG":  # where the second picture is a preview made by a camera
            return 1
        if self._kind == "TIFF":
            return len(self._pages)
        if self._kind == "GIF" and (decoded := recall.known(self._stream, "GIF")):
            return len(decoded.details)  # else counting would go through the whole file for each of its frames
        return getattr(self._image, "n_frames", 1)

    def frame(self, number: int) -> Frame:
        """Decode one page."""
        # asked again, Pillow gives what it has of a damaged picture, without an error
        if number in self._refused:
            raise self._refused[number].with_traceback(None)
        page = f"its page {number}" if self.count > 1 else "its picture"
        try:
            with guarded(self._path, f"{page} is damaged or cut short"):
                if self._is_cine:
                    check_size(self._path, self._image.height, self._image.width)
                    levels = grey_levels(self._path, self._cine.pixels[number])  # none behind one that is damaged
                    return Frame(levels, number, self.time(number))
                if self._kind == "TIFF":
                    self._image = self._open(number)
                elif self.count > 1:
                    self._image.seek(number)
                check_size(self._path, self._image.height, self._image.width)
                ImageOps.exif_transpose(self._image, in_place=True)
                return Frame(self._levels(), number)
        except FrameError as error:
            self._refused[number] = error
            raise

    def time(self, number: int) -> float | None:
        """Milliseconds from the first frame of an animation to this one, where it tells how long each is shown."""
        if not self._is_cine:
            return None
        with guarded(self._path, f"its {self._kind} data is damaged or cut short"):
            return self._cine.details[number]

    @property
    def _is_cine(self) -> bool:
        size = self.count * self._image.width * self._image.height
        return self._kind in _ANIMATED and self.count > 1 and size <= MAX_BYTES

    def _levels(self) -> np.ndarray:
        if self._kind == "TIFF" and (levels := grey_samples(self._path, self._image)) is not None:
            return levels
        if self._image.mode.startswith("I"):
            return grey_levels(self._path, np.asarray(self._image), 0, 65535)
        return grey_levels(self._path, _luma(self._image))

    @cached_property
    def _cine(self) -> Decoded[list[float | None]]:
        return recall(self._stream, self._kind, self._decode_animation)

    def _decode_animation(self) -> Decoded[list[float | None]]:
        pages, durations = [], [0.0] * self.count
        try:
            for number in range(self.count):
                self._image.seek(number)
                pages.append(_luma(self._image))
                durations[number] = float(self._image.info.get("duration", 0))
        except Exception as error:  # those before a damaged one can be shown
            if not pages or machine_error(error) is not None:
                raise
        times: list[float | None] = [None] * self.count
        if any(durations):
            times = [0.0, *accumulate(durations[:-1])]
        return Decoded(np.stack(pages), times)


def _luma(image: Image.Image) -> np.ndarray:
    if image.mode == "P":
        image = image.convert("RGB")  # straight to grey, Pillow takes the table for the levels of some files
    return np.asarray(image if image.mode == "L" else image.convert("L"))
