"""DICOM, single frames and cines, through pydicom and its decoders.

Only what the pixels need is taken out of a header. The two functions at the end are the only doors to anything else.
"""

from __future__ import annotations

import os
import struct
import zlib
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from typing import BinaryIO, cast

import numpy as np
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    as_pixel_options,
    convert_color_space,
    get_decoder,
)
from pydicom.tag import BaseTag, Tag

from .codestream import inspect_codestream
from .frame import MAX_BYTES, MIN_SIDE, Frame, FrameError, check_size
from .guard import guarded, opened
from .kinds import HEAD, sniff
from .levels import grey_levels, luma

__all__ = ["DicomSource", "machine", "patient_id"]

_PIXEL_DATA = 0x7FE0, 0x0010
_BY_PILLOW = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000, uid.JPEG2000Lossless}
_JPEG_LOSSLESS = {uid.JPEGLossless, uid.JPEGLosslessSV1}
_RESCALE = [("RescaleSlope", 1), ("RescaleIntercept", 0)]
_TWO_DIMENSIONAL, _TISSUE = 1, 1  # region spatial format and data type
_SMALLEST_FRAME = 64  # bytes: the header of an RLE frame, and less than that of any other compression
_TAGS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable"),
    *("ExtendedOffsetTableLengths", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate", "SequenceOfUltrasoundRegions"),
]


class DicomSource:
    """The frames of a DICOM file.

    Grey levels pass the modality LUT or rescale and the VOI LUT or first window of the header; without a window, the
    range of the stored bits becomes 0 to 255. ``MONOCHROME1`` and an inverse presentation LUT are inverted. Colours
    become their luma.

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
            self._stream, self._header = _read_header(path, stream, _TAGS)
            syntax = _transfer_syntax(self._header)
            pixel_vr = _skip_to_pixels(self._stream, syntax.is_little_endian)
            if pixel_vr is None or "Rows" not in self._header:
                raise FrameError(path, "it is a DICOM file without a picture")
            check_size(path, self._header.Rows, self._header.Columns)
            self._options = {**as_pixel_options(self._header), "pixel_keyword": "PixelData", "pixel_vr": pixel_vr}
            self.count: int = self._options["number_of_frames"]
            self._start = self._stream.tell()
            available = self._stream.seek(0, os.SEEK_END) - self._start
            if self.count < 1 or self.count * _SMALLEST_FRAME > available:
                raise FrameError(path, f"its header tells of {self.count} frames, its pixel data is too short for them")
            self._region = _region(self._header)
            self._syntax, self._name = syntax, syntax.name if syntax.is_transfer_syntax else "unknown"
            try:
                self._decoder = get_decoder(syntax)
            except NotImplementedError:
                raise FrameError(path, f"its compression is not supported ({self._name})") from None

    def frame(self, number: int) -> Frame:
        """Decode one frame; of the others at most the lengths are read."""
        what = f"its frame {number}" if self.count > 1 else "its pixel data"
        with guarded(self._path, f"{what} is damaged or cut short"):
            pixels = self._decode(number)
            return Frame(_levels(self._path, pixels, self._header), number, self._time(number), self._region)

    def _decode(self, number: int) -> np.ndarray:
        options, plugin = self._options, ""
        if self._decoder.is_encapsulated:
            options = {**options, "extended_offsets": self._offsets}
        if self._decoder.is_encapsulated and self._syntax != uid.RLELossless:
            self._stream.seek(self._start)
            data = get_frame(
                cast(BytesIO, self._stream), number, number_of_frames=self.count, extended_offsets=self._offsets
            )
            bits = self._check_codestream(data)
            if self._syntax in _JPEG_LOSSLESS and bits == 8:  # Pillow can, though pydicom does not ask it
                pixels = np.asarray(Image.open(BytesIO(data), formats=["JPEG"]))
                coded = self._header.PhotometricInterpretation
                return convert_color_space(pixels, coded, "RGB") if coded.startswith("YBR") else pixels
            plugin = "pillow" if self._syntax in _BY_PILLOW else "gdcm"
        if plugin == "gdcm" and "gdcm" not in self._decoder.available_plugins:
            raise FrameError(self._path, f'its compression, {self._name}, needs `pip install "monai-fetalkd[frames]"`')
        self._stream.seek(self._start)
        return next(self._decoder.iter_array(self._stream, indices=[number], decoding_plugin=plugin, **options))[0]

    @cached_property
    def _offsets(self) -> tuple[list[int], list[int]] | tuple[bytes, bytes] | None:
        """Where the compressed frames begin, and their lengths.

        A file may lack a table of them; then pydicom would walk through all frames anew to find each.
        """
        table = self._options.get("extended_offsets")
        stream = cast(BytesIO, self._stream)
        stream.seek(self._start)
        if table or self.count == 1 or parse_basic_offsets(stream):
            return table
        first = stream.tell()
        _, starts = parse_fragments(stream)
        if len(starts) != self.count:
            return None
        stream.seek(starts[-1] + 4)
        (last,) = struct.unpack("<L", stream.read(4))
        lengths = [after - before - 8 for before, after in pairwise(starts)]
        return [start - first for start in starts], [*lengths, last]

    def _check_codestream(self, data: bytes) -> int:
        """Return the bits of a compressed frame, which tells its size a second time.

        Decoders believe it and write as much. GDCM ends the whole process when the two disagree, or when the colours of
        a lossless JPEG are not those it knows.
        """
        header, found = self._header, inspect_codestream(data)
        told = header.Rows, header.Columns, header.SamplesPerPixel
        if found[:3] != told:
            raise FrameError(
                self._path, f"its header tells of {told} rows, columns and colours, the frame of {found[:3]}"
            )
        if not max(found.bits, header.BitsStored) <= header.BitsAllocated:
            raise FrameError(self._path, f"its header tells of {header.BitsAllocated} bits, the frame of {found.bits}")
        by_gdcm = self._syntax not in _BY_PILLOW
        if by_gdcm and found.components > 1 and (found.bits, header.BitsStored, header.BitsAllocated) != (8, 8, 8):
            raise FrameError(
                self._path, f"its compression is not supported ({self._name}, colours of {found.bits} bits)"
            )
        if self._syntax == uid.JPEGExtended12Bit and found.bits > 8:
            raise FrameError(self._path, f"its compression is not supported ({self._name}, {found.bits} bits)")
        return found.bits

    def _time(self, number: int) -> float | None:
        header = self._header
        if self.count == 1:
            return None
        if increments := header.get("FrameTimeVector"):
            return float(sum(increments[1 : number + 1]))
        if step := header.get("FrameTime"):
            return float(step) * number
        rate = header.get("CineRate") or header.get("RecommendedDisplayFrameRate")
        return 1000.0 * number / float(rate) if rate else None


def _read_header(path: str, stream: BinaryIO, tags: list[str]) -> tuple[BinaryIO, Dataset]:
    """The elements of these names, and the stream that holds them, at the pixel data or at its end."""
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=_after_meta, specific_tags=[Tag("TransferSyntaxUID")])
    if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
        # pydicom would inflate without a limit; what comes out is a file without meta information
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), MAX_BYTES)
        if len(data) == MAX_BYTES:
            raise FrameError(path, f"it inflates to more than {MAX_BYTES:,} bytes")
        stream = BytesIO(data)
    stream.seek(0)
    return stream, dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(tags))


def _after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _transfer_syntax(header: Dataset) -> uid.UID:
    """As told by the meta information, or for a file without it as pydicom found its elements to be written."""
    if told := header.file_meta.get("TransferSyntaxUID"):
        return uid.UID(told)
    implicit, little_endian = header.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian


def _skip_to_pixels(stream: BinaryIO, little_endian: bool) -> str | None:
    """Go on to the first byte of pixel data and return its value representation; None where there is no pixel data."""
    element = stream.read(8)
    if element[:4] != struct.pack("<HH" if little_endian else ">HH", *_PIXEL_DATA):
        return None
    if element[4:6] not in (b"OB", b"OW"):  # implicit; some files are, against what their meta information tells
        return "OW"
    stream.read(4)  # the length
    return element[4:6].decode("ascii")


def _levels(path: str, pixels: np.ndarray, header: Dataset) -> np.ndarray:
    white = 2**header.BitsStored - 1
    if header.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, header)[..., :3]
        if header.RedPaletteColorLookupTableDescriptor[2] == 16:
            colours = colours >> 8  # whether 8 bits were shifted there, or repeated, they come back
        return grey_levels(path, luma(colours.astype(np.uint8)))
    if pixels.ndim == 3:
        return grey_levels(path, luma(pixels), 0, white)
    values = apply_modality_lut(pixels, header)
    low: float
    high: float
    if header.get("VOILUTSequence"):
        values = apply_voi(values, header)
        low, high = 0, 2 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
    else:
        values = apply_windowing(values, header)
        low, high = _range(header)
    levels = grey_levels(path, values, low, high)
    inverted = header.PhotometricInterpretation == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE"
    return 255 - levels if inverted else levels


def _range(header: Dataset) -> tuple[float, float]:
    """The values that a pixel can take after the modality LUT, and after a window, which keeps them."""
    if modality := header.get("ModalityLUTSequence"):
        return 0, 2 ** modality[0].LUTDescriptor[2] - 1
    low = -(2 ** (header.BitsStored - 1)) if header.PixelRepresentation else 0
    high = low + 2**header.BitsStored - 1
    slope, intercept = (float(header.get(name) or default) for name, default in _RESCALE)
    return low * slope + intercept, high * slope + intercept


def _region(header: Dataset) -> tuple[int, int, int, int] | None:
    """The largest B-mode region inside the frame; None where there is none, or one that does not fit the pixels."""
    best = None
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        if (region.get("RegionSpatialFormat"), region.get("RegionDataType")) != (_TWO_DIMENSIONAL, _TISSUE):
            continue
        left, top, right, bottom = (
            region.get(f"RegionLocation{name}", -1) for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")
        )
        if left < 0 or top < 0 or right > header.Columns or bottom > header.Rows:
            continue
        # the last row and column belong to the region, though some machines write the first beyond
        found = top, left, min(bottom + 1, header.Rows), min(right + 1, header.Columns)
        if min(found[2] - top, found[3] - left) >= MIN_SIDE and (best is None or _area(found) > _area(best)):
            best = found
    return best


def _area(region: tuple[int, int, int, int]) -> int:
    top, left, bottom, right = region
    return (bottom - top) * (right - left)


def patient_id(path: str | os.PathLike[str]) -> str | None:
    """The patient's number in the header of a DICOM file: replace it by a hash at once, and never show it.

    Args:
        path: any file.

    Returns:
        The number, or None where the file is not DICOM or holds none.

    Raises:
        FrameError: when the header is damaged.
        FileNotFoundError: when there is no such file.
    """
    return _value(path, "PatientID")


def machine(path: str | os.PathLike[str]) -> str | None:
    """The model of the ultrasound machine in the header of a DICOM file.

    Args:
        path: any file.

    Returns:
        The name that its maker gave it, or None where the file is not DICOM or holds none.

    Raises:
        FrameError: when the header is damaged.
        FileNotFoundError: when there is no such file.
    """
    return _value(path, "ManufacturerModelName")


def _value(path: str | os.PathLike[str], keyword: str) -> str | None:
    path = os.fspath(path)
    with opened(path) as stream, guarded(path, "its DICOM header is damaged or cut short"):
        if sniff(stream.read(HEAD)) != "DICOM":
            return None
        stream.seek(0)
        _, header = _read_header(path, stream, [keyword])
        return str(header.get(keyword) or "").strip() or None
