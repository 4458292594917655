"""How the pixels of a DICOM file are stored, and the decoders that read them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space, get_decoder

from monai_fetalkd.utils.requirements import pip_install

from ..codestream import Codestream, Coding
from ..frame import FrameError, check_scans
from ..guard import warn_once
from .elements import number, text
from .header import Header

__all__ = ["PixelFormat", "Pixels", "decode_codestream", "decode_plain", "decode_run_length", "read_format"]

_GREYS, _COLOURS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), ("RGB", "YBR_FULL", "YBR_FULL_422")
_UNDONE = ("YBR_RCT", "YBR_ICT")  # the transforms of JPEG 2000, which its decoders undo
_MOST_TILES = 4096
_MOST_RUN_LENGTH = 2**24  # bytes of a compressed frame, each of which can become 64


@dataclass(frozen=True)
class PixelFormat:
    """How the header tells that a frame is stored."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    planar: int

    def options(self, **changes: Any) -> dict[str, Any]:
        """The same for the decoders of pydicom, which read one frame at a time."""
        options = {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.photometric,
            "bits_allocated": self.allocated,
            "bits_stored": self.stored,
            "pixel_representation": int(self.signed),
            "planar_configuration": self.planar,
            "pixel_keyword": "PixelData",
            "number_of_frames": 1,
        }
        return {**options, **changes}

    @property
    def frame_bytes(self) -> int:
        """Length of an uncompressed frame, rounded up."""
        samples = self.rows * self.columns * self.samples
        if self.photometric == "YBR_FULL_422":
            samples = samples // 3 * 2
        return -(-samples * self.allocated // 8)


class Pixels(NamedTuple):
    """A decoded frame."""

    values: np.ndarray
    """(rows, columns) as stored, or (rows, columns, 3) of red, green and blue."""
    bits: int
    """How many bits a value can have."""
    signed: bool = False


def read_format(path: str, header: Header) -> PixelFormat:
    """Read how the pixels are stored, with the only sensible value for what a header leaves out.

    Raises:
        FrameError: when the header lacks what cannot be known, contradicts itself, or tells of what is not supported.
    """
    elements = header.elements

    def whole(keyword: str, default: int | None = None) -> int:
        value = number(elements, keyword)
        if value is None and default is None:
            raise FrameError(path, f"its header lacks {keyword}")
        return int(default if value is None else value)  # type: ignore[arg-type]

    photometric = text(elements, "PhotometricInterpretation")
    samples = whole("SamplesPerPixel", 3 if photometric.startswith(("RGB", "YBR")) else 1)
    if not photometric:
        photometric = "RGB" if samples == 3 else "MONOCHROME2"
        warn_once(path, f"its header lacks PhotometricInterpretation, {photometric} is assumed")
    if photometric not in (*_GREYS, *_COLOURS, *_UNDONE):
        raise FrameError(path, f"pixels of the kind {photometric} are not supported")
    if samples != (1 if photometric in _GREYS else 3):
        raise FrameError(path, f"its header contradicts itself: SamplesPerPixel is {samples} for {photometric}")
    allocated = whole("BitsAllocated")
    stored = whole("BitsStored", allocated)
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated:
        raise FrameError(path, f"pixels of {stored} bits in {allocated} (BitsStored, BitsAllocated) are not supported")
    high_bit = whole("HighBit", stored - 1)
    if not stored <= high_bit + 1 <= allocated:
        warn_once(path, f"its HighBit {high_bit} is impossible for {stored} bits in {allocated}, it is ignored")
        high_bit = stored - 1
    planar, signed = whole("PlanarConfiguration", 0), whole("PixelRepresentation", 0)
    if planar not in (0, 1) or signed not in (0, 1):
        warn_once(path, "its PlanarConfiguration or PixelRepresentation is neither 0 nor 1, 0 is assumed")
        planar, signed = int(planar == 1), int(signed == 1)
    return PixelFormat(
        whole("Rows"), whole("Columns"), samples, photometric, allocated, stored, high_bit, bool(signed), planar
    )


def decode_plain(read: Callable[[int, int], bytes], form: PixelFormat, syntax: uid.UID, vr: str, frame: int) -> Pixels:
    """An uncompressed frame.

    Args:
        read: returns so many bytes of the pixel data from a position in it.
        form: how it is stored.
        syntax: the transfer syntax.
        vr: value representation of the pixel data.
        frame: its number.
    """
    # frames of single bits follow each other without a gap; a frame of bytes may begin in the middle of a swapped word
    first = frame * form.rows * form.columns * form.samples // 8 if form.allocated == 1 else frame * form.frame_bytes
    odd = first % 2
    source = read(first - odd, form.frame_bytes + 2)
    if form.allocated == 1:
        bits = np.unpackbits(np.frombuffer(source[odd:], np.uint8), bitorder="little")
        skipped = frame * form.rows * form.columns % 8
        return Pixels(bits[skipped : skipped + form.rows * form.columns].reshape(form.rows, form.columns), 1)
    if not syntax.is_little_endian and form.allocated == 8 and vr == "OW":
        source = np.frombuffer(source[: len(source) // 2 * 2], "u2").byteswap().tobytes()
    source = source[odd : odd + form.frame_bytes]
    options = form.options(bits_stored=form.high_bit + 1, pixel_vr="OB")
    values, _ = get_decoder(syntax).as_array(source + bytes(len(source) % 2), index=0, **options)
    return _shifted(values, form)


def decode_run_length(path: str, data: bytes, form: PixelFormat) -> Pixels:
    """A frame of RLE Lossless.

    Raises:
        FrameError: when it is longer than any code of such a frame.
    """
    most = min(_MOST_RUN_LENGTH, 4 * form.frame_bytes + 1024)
    if len(data) > most:
        raise FrameError(path, f"its run-length code takes {len(data):,} bytes, {most:,} are the most")
    options = form.options(bits_stored=form.high_bit + 1)
    values, _ = get_decoder(uid.RLELossless).as_array(encapsulate([data]), index=0, **options)
    return _shifted(values, form)


def _shifted(values: np.ndarray, form: PixelFormat) -> Pixels:
    shift = form.high_bit + 1 - form.stored
    return Pixels(values >> shift if shift else values, form.stored, form.signed)


def decode_codestream(path: str, frame: Codestream, form: PixelFormat, syntax: uid.UID) -> Pixels:
    """A compressed frame.

    The codestream tells its size a second time. Decoders believe it and write as much, and GDCM ends the whole process
    when header and codestream disagree, or when the colours of a lossless JPEG are not those it knows.

    Attributes of stored pixels that a decoder has already dealt with are not applied again: planar configuration, high
    bit, the sign of a lossy JPEG, and colours that were converted.

    Raises:
        FrameError: when the codestream contradicts the size that the header tells, or is not supported.
    """
    told, found = (form.rows, form.columns), (frame.rows, frame.columns)
    if found != told:
        raise FrameError(path, f"its header tells of {told} rows and columns, the frame of {found}")
    form = _with_components(path, frame.components, frame.transformed, form)
    if frame.bits > form.allocated:
        raise FrameError(path, f"its header tells of {form.allocated} bits, the frame of {frame.bits}")
    if frame.coding is Coding.JPEG and frame.bits > 8:
        raise FrameError(path, f"its compression is not supported ({syntax.name}, {frame.bits} bits)")
    if frame.coding is Coding.JPEG_2000 and frame.parts > _MOST_TILES:
        raise FrameError(path, f"it consists of {frame.parts:,} tiles, {_MOST_TILES:,} are the most")
    if frame.coding is Coding.JPEG or (frame.coding is Coding.LOSSLESS and frame.bits == 8):
        check_scans(path, frame.parts)
        return _decode_by_pillow(frame, form)
    if frame.components == 3 and (frame.bits, form.stored, form.allocated) != (8, 8, 8):
        raise FrameError(path, f"its compression is not supported ({syntax.name}, colours of {frame.bits} bits)")
    return _decode_by_pydicom(path, frame, form)


def _with_components(path: str, components: int, transformed: bool | None, form: PixelFormat) -> PixelFormat:
    """The format with as many colours as the codestream has, which a decoder gives whatever the header says."""
    if components == form.samples:
        return form
    if components not in (1, 3) or form.photometric == "PALETTE COLOR":
        raise FrameError(
            path, f"its header tells of {form.samples} colours ({form.photometric}), its frame of {components}"
        )
    warn_once(path, f"its header tells of {form.samples} colours and its frame of {components}, which is believed")
    if components == 1:
        return replace(form, samples=1, photometric="MONOCHROME2")
    return replace(form, samples=3, photometric="RGB" if transformed is False else "YBR_FULL")


def _decode_by_pillow(frame: Codestream, form: PixelFormat) -> Pixels:
    image = Image.open(BytesIO(frame.data), formats=["JPEG"])
    bits = min(form.stored, frame.bits)
    signed = form.signed and frame.coding is Coding.LOSSLESS
    if frame.components == 1:
        values = np.asarray(image)
        return Pixels(values.view(np.int8) if signed else values, bits, signed)
    transformed = frame.transformed if frame.transformed is not None else form.photometric.startswith("YBR")
    if frame.converts:  # as pydicom does it, which differs from libjpeg by a grey level here and there
        image.draft("YCbCr", image.size)
    colours = np.asarray(image)
    return Pixels(convert_color_space(colours, "YBR_FULL", "RGB") if transformed else colours, 8)


def _decode_by_pydicom(path: str, frame: Codestream, form: PixelFormat) -> Pixels:
    """By the first of pydicom's plugins that can: another may read what one calls broken."""
    syntax, plugins = {
        Coding.JPEG_2000: (uid.JPEG2000, ("pillow", "gdcm")),
        Coding.JPEG_LS: (uid.JPEGLSLossless, ("gdcm",)),
        Coding.LOSSLESS: (uid.JPEGLossless, ("gdcm",)),
    }[frame.coding]
    decoder = get_decoder(syntax)
    if not set(plugins) & set(decoder.available_plugins):
        raise FrameError(path, f"its compression, {frame.coding.value}, needs `{pip_install('gdcm')}`")
    if not frame.has_tables:
        raise ValueError("it lacks its tables")
    form = replace(form, planar=0)
    if frame.coding is Coding.JPEG_2000 and frame.transformed:
        form = replace(form, photometric="RGB")
    for plugin in plugins:
        with suppress(Exception):
            values, _ = decoder.as_array(encapsulate([frame.data]), index=0, decoding_plugin=plugin, **form.options())
            return Pixels(values, min(form.stored, frame.bits), form.signed)
    raise ValueError("no decoder can read it")
