"""The frames of a DICOM file."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from typing import BinaryIO

from pydicom import uid
from pydicom.pixels import get_decoder

from ..codestream import inspect_codestream
from ..frame import Frame, FrameError, check_size
from ..guard import guarded, warn_once
from ..levels import with_square_pixels
from .display import display_levels
from .elements import number
from .fragments import ITEM, Fragment, locate_frames, read_fragments
from .geometry import b_mode_pixel_size, b_mode_region, pixel_ratio
from .header import UNDEFINED_LENGTH, Header, PixelElement, read_header
from .pixels import Pixels, decode_codestream, decode_plain, decode_run_length, read_format
from .times import frame_times

__all__ = ["DicomSource"]

_SMALLEST_FRAME = 64  # bytes: the header of an RLE frame, and less than that of any other compression
_HIGH_THROUGHPUT = {uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K}
_PALETTE = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
_KEYWORDS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *(f"{table}{part}" for table in _PALETTE for part in ("Descriptor", "Data")),
    *(f"Segmented{table}Data" for table in _PALETTE),
    *("FrameTime", "FrameTimeVector", "FrameIncrementPointer", "CineRate", "RecommendedDisplayFrameRate"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("PixelSpacing", "PixelAspectRatio", "SequenceOfUltrasoundRegions"),
]


class DicomSource:
    """The frames of a DICOM file.

    Grey levels pass the modality LUT or rescale and the VOI LUT or first window of the header, or of the functional
    groups of the frame; without a window, the range of the stored bits becomes 0 to 255. ``MONOCHROME1`` and an inverse
    presentation LUT are inverted. Colours become their luma. Pixels that are not square are made so.

    What only says how to show the pixels is no reason to refuse them: where it cannot be used, a warning tells so.

    Args:
        path: the file, for errors.
        stream: the same file, open.

    Raises:
        FrameError: when the header is damaged, or tells of no picture or one of absurd size.

    References:
        DICOM PS3.3, sections C.7.6.3 (image pixel), C.7.6.5 (cine), C.8.5.5 (ultrasound regions), C.11 (LUTs).
    """

    def __init__(self, path: str, stream: BinaryIO) -> None:
        self._path = path
        with guarded(path, "its DICOM header is damaged or cut short"):
            header = read_header(path, stream, _KEYWORDS)
            self._elements, self._stream, self._syntax = header.elements, header.stream, header.syntax
            self._place = _find_pixels(path, header)
            _check_syntax(path, self._syntax)
            self._form = read_format(path, header)
            check_size(path, self._form.rows, self._form.columns)
            self.count = _count_frames(path, header)
            self._available = self._stream.seek(0, os.SEEK_END) - self._place.start
            if self.count * _SMALLEST_FRAME > self._available:
                raise FrameError(path, f"its header tells of {self.count} frames, its pixel data is too short for them")
            self._is_encapsulated = self._holds_items()
            self._check_length()

    def frame(self, number: int) -> Frame:
        """Decode one frame; of the others at most the lengths are read."""
        what = f"its frame {number}" if self.count > 1 else "its pixel data"
        with guarded(self._path, f"{what} is damaged or cut short"):
            pixels = self._decode(number)
            levels = display_levels(self._path, pixels, self._form.photometric, self._elements, number)
            region = b_mode_region(self._elements, self._form.rows, self._form.columns)
            size = b_mode_pixel_size(self._elements, self._form.rows, self._form.columns)
            levels, region = with_square_pixels(levels, pixel_ratio(self._elements, number), region)
            if size is not None:
                size = size[0] * self._form.rows / levels.shape[0], size[1] * self._form.columns / levels.shape[1]
            return Frame(levels, number, self.time(number), region, size)

    def time(self, number: int) -> float | None:
        """Milliseconds from the first frame to this one, where the header tells."""
        return self._times[number] if self._times else None

    def _decode(self, number: int) -> Pixels:
        if not self._is_encapsulated:
            return decode_plain(self._read, self._form, self._syntax, self._place.vr, number)
        data = read_fragments(self._stream, self._fragments[number])
        if self._syntax == uid.RLELossless:
            return decode_run_length(self._path, data, self._form)
        return decode_codestream(self._path, inspect_codestream(data), self._form, self._syntax)

    def _read(self, start: int, length: int) -> bytes:
        self._stream.seek(self._place.start + start)
        return self._stream.read(max(0, min(length, self._place.length - start)))

    @cached_property
    def _fragments(self) -> list[list[Fragment]]:
        return locate_frames(self._stream, self._place.start, self.count)

    @cached_property
    def _times(self) -> list[float] | None:
        return frame_times(self._path, self._elements, self.count)

    def _holds_items(self) -> bool:
        """Whether the frames are compressed; the data decides, not the name of the transfer syntax."""
        if not self._syntax.is_encapsulated and self._place.length != UNDEFINED_LENGTH:
            return False
        self._stream.seek(self._place.start)
        return self._stream.read(4) == ITEM

    def _check_length(self) -> None:
        """Compare the length of uncompressed pixels with what the header tells of them."""
        if self._is_encapsulated:
            return
        if self._syntax.is_encapsulated:
            raise FrameError(
                self._path, f"its pixel data is not compressed, though its header says so ({self._syntax.name})"
            )
        form, count = self._form, self.count
        if form.photometric == "YBR_FULL_422" and self._place.length >= count * form.frame_bytes * 3 // 2:
            warn_once(self._path, "its pixel data is too long for YBR_FULL_422, it is read as YBR_FULL")
            self._form = replace(form, photometric="YBR_FULL")
        elif self._place.length >= (count + 1) * form.frame_bytes:
            warn_once(self._path, "its pixel data is longer by a frame or more than its header tells")


def _find_pixels(path: str, header: Header) -> PixelElement:
    place = header.pixels
    if place is None:
        raise FrameError(path, "it is a DICOM file without a picture")
    if place.keyword != "PixelData":
        raise FrameError(path, f"pixels that are floating-point numbers ({place.keyword}) are not supported")
    return place


def _check_syntax(path: str, syntax: uid.UID) -> None:
    try:
        get_decoder(syntax)
        supported = syntax not in _HIGH_THROUGHPUT
    except NotImplementedError:
        supported = False
    if not supported:
        raise FrameError(
            path,
            f"its compression is not supported ({syntax.name}): convert it to JPEG 2000 or uncompressed DICOM first",
        )


def _count_frames(path: str, header: Header) -> int:
    count = number(header.elements, "NumberOfFrames")
    if "NumberOfFrames" in header.elements and (count is None or count < 1):
        warn_once(path, "its NumberOfFrames is no number from 1, one frame is assumed")
        return 1
    return 1 if count is None else int(count)
