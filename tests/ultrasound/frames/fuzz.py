"""Reads damaged files and tells what happened, in a process of its own: ``fuzz.py kind inputs seed``.

A decoder that hangs ends the process by an alarm, one that crashes by a signal. What is left to tell is printed as
JSON: the exceptions that are not documented, how many files were refused, and by how many bytes memory grew.
"""

from __future__ import annotations

import gzip
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path

import nibabel
import numpy as np
import pydicom.examples
from PIL import Image
from pydicom import uid

from monai_fetalkd.ultrasound.frames import FrameError, count_frames, read_frame
from tests.ultrasound.frames.make import anatomy, compressed, dataset, transcoded

SECONDS = 10  # for one input; the decoders need milliseconds
GREY = anatomy()
COLOURED = np.stack([anatomy(0), anatomy(1), anatomy(2)], axis=-1)
CINE = np.stack([anatomy(number) for number in range(5)])
METAIMAGE = b"ObjectType = Image\nNDims = 3\nDimSize = 56 40 5\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"


def pictures(folder: Path) -> Iterator[bytes]:
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF"):
        for picture in (GREY, COLOURED):
            stream = BytesIO()
            Image.fromarray(picture).save(stream, kind)
            yield stream.getvalue()
    stream = BytesIO()
    Image.fromarray(GREY).save(
        stream, "TIFF", compression="tiff_lzw", save_all=True, append_images=[Image.fromarray(GREY)]
    )
    yield stream.getvalue()


def volumes(folder: Path) -> Iterator[bytes]:
    nifti = nibabel.Nifti1Image(CINE.T, np.diag([-1, -1, 1, 1])).to_bytes()
    yield from (nifti, gzip.compress(nifti), nibabel.Nifti2Image(CINE.T, np.eye(4)).to_bytes())
    yield METAIMAGE + CINE.tobytes()


def plain_dicom(folder: Path) -> Iterator[bytes]:
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian):
        yield saved(dataset(CINE, syntax, FrameTime=40))
    palette = Path(pydicom.examples.get_path("palette_color"))
    yield from (saved(dataset(COLOURED)), palette.read_bytes())


def compressed_dicom(folder: Path) -> Iterator[bytes]:
    for picture in (CINE, COLOURED):
        run_length = dataset(picture)
        run_length.compress(uid.RLELossless, generate_instance_uid=False)
        yield saved(run_length)
        for syntax in (uid.JPEGBaseline8Bit, uid.JPEG2000Lossless, uid.JPEG2000):
            yield saved(compressed(picture, syntax))
    for syntax in (uid.JPEGLosslessSV1, uid.JPEGLSLossless):
        yield from (transcoded(dataset(picture), syntax, folder) for picture in (GREY, COLOURED))
        yield transcoded(dataset(GREY.astype(np.uint16) * 16, BitsStored=12, HighBit=11), syntax, folder)
    yield from (Path(pydicom.examples.get_path(name)).read_bytes() for name in ("ybr_color", "jpeg2k"))


KINDS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    "pictures": pictures,
    "volumes": volumes,
    "plain_dicom": plain_dicom,
    "compressed_dicom": compressed_dicom,
    "all": lambda folder: chain(pictures(folder), volumes(folder), plain_dicom(folder), compressed_dicom(folder)),
}


def saved(file: pydicom.Dataset) -> bytes:
    stream = BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, most of them in the header, or a part cut out, cut off or repeated."""
    changed = bytearray(data)
    reach = int(rng.choice([400, 1500, len(data)]))
    for position in rng.integers(0, min(reach, len(data)), rng.integers(1, 12)):
        changed[position] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
    start, end = sorted(rng.integers(0, len(data), 2))
    match rng.integers(8):
        case 0:
            del changed[start:]
        case 1:
            del changed[start : min(end, start + 64)]
        case 2:
            changed[start:start] = changed[start:end][:256]
    return bytes(changed)


def main(kind: str, inputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    undocumented: list[str] = []
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        files = list(KINDS[kind](Path(folder)))
        path = Path(folder) / "frame"
        memory = 0
        for number in range(-len(files), inputs):
            data = files[number] if number < 0 else damaged(files[number % len(files)], rng)
            path.write_bytes(data)
            signal.alarm(SECONDS)
            try:
                read_frame(path, count_frames(path) - 1)
            except FrameError:
                refused += 1
            except Exception as error:
                undocumented.append(f"input {number}: {type(error).__name__}: {error}")
            signal.alarm(0)
            if number == -1:
                assert not refused
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024
    print(json.dumps({"undocumented": undocumented, "refused": refused, "grown": grown}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
