"""Writes the files that the tests of frames read, with encoders that are not those under test."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate


def anatomy(seed: int = 0) -> np.ndarray:
    """A small picture that no flip or turn leaves as it was: (height, width) of uint8, from 0 to 255."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:40, 0:56]
    picture = 2.0 * rows + columns + 20 * np.hypot(rows - 12, columns - 40) % 97 + rng.integers(0, 20, (40, 56))
    picture -= picture.min()
    return np.round(255 * picture / picture.max()).astype(np.uint8)


def dataset(frames: np.ndarray, syntax: uid.UID = uid.ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """An ultrasound dataset with these pixels, (frames,) height, width(, 3), as they stand."""
    colours = frames.shape[-1] == 3
    shape = frames.shape[:-1] if colours else frames.shape
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    file = Dataset()
    file.file_meta = meta
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Modality = "US"
    file.Rows, file.Columns = shape[-2:]
    file.SamplesPerPixel = 3 if colours else 1
    file.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        file.PlanarConfiguration = 0
    if len(shape) == 3:
        file.NumberOfFrames = shape[0]
    bits = 8 * frames.itemsize
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    file.PixelRepresentation = int(frames.dtype.kind == "i")
    for name, value in elements.items():
        setattr(file, name, value)
    data = frames.astype(frames.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
    file.PixelData = data + b"\0" * (len(data) % 2)
    file["PixelData"].VR = "OB" if bits == 8 else "OW"
    return file


def compressed(frames: np.ndarray, syntax: uid.UID, **elements: Any) -> Dataset:
    """The same, encoded by Pillow, which writes JPEG and JPEG 2000 codestreams."""
    file = dataset(frames, syntax, **elements)
    format_options: dict[str, Any] = {"format": "JPEG", "quality": 95}
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        format_options = {"format": "JPEG2000", "no_jp2": True, "irreversible": syntax == uid.JPEG2000}
        if file.SamplesPerPixel == 3:
            file.PhotometricInterpretation = "YBR_RCT" if syntax == uid.JPEG2000Lossless else "YBR_ICT"
    elif file.SamplesPerPixel == 3:
        file.PhotometricInterpretation = "YBR_FULL_422"
    encoded = []
    for frame in frames if "NumberOfFrames" in file else [frames]:
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, **format_options)
        encoded.append(stream.getvalue())
    file.PixelData = encapsulate(encoded)
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    return file


def encoded(frame: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """A codestream of a frame, written by Pillow."""
    stream = io.BytesIO()
    image = frame if isinstance(frame, Image.Image) else Image.fromarray(frame)
    image.save(stream, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}) | options)
    return stream.getvalue()


def with_codestreams(file: Dataset, codestreams: list[bytes], table: list[int] | None = None) -> Dataset:
    """The same with these fragments as its pixel data, behind a Basic Offset Table."""
    parts = [
        struct.pack(f"<{len(table or [])}L", *table or []),
        *(code + b"\0" * (len(code) % 2) for code in codestreams),
    ]
    file.PixelData = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(part)) + part for part in parts)
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    return file


def lut(entries: np.ndarray, bits: int) -> Dataset:
    """An item of a modality or VOI LUT, with entries in the type of the array."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), 0, bits])
    item.add_new("LUTData", "OW", entries.tobytes())
    return item


def functional_group(**macros: dict[str, Any]) -> Dataset:
    """An item of the shared or per-frame functional groups, with these elements in these sequences."""
    group = Dataset()
    for macro, elements in macros.items():
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(group, macro, [item])
    return group


def transcoded(file: Dataset, syntax: uid.UID, folder: Path) -> bytes:
    """The same, encoded by GDCM, which writes lossless JPEG and JPEG-LS."""
    gdcm = pytest.importorskip("gdcm")
    plain, encoded = folder / "plain.tmp", folder / "encoded.tmp"
    file.save_as(plain, enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(encoded))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    data = encoded.read_bytes()
    plain.unlink()
    encoded.unlink()
    return data


def region(left: int, top: int, right: int, bottom: int, data_type: int = 1, spatial_format: int = 1) -> Dataset:
    """An item of the sequence of ultrasound regions."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = spatial_format, data_type
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    return item
