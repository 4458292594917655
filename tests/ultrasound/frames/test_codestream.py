from __future__ import annotations

import struct

import numpy as np
import pytest
from pydicom import uid

from monai_fetalkd.ultrasound.frames import FrameError, read_frame
from monai_fetalkd.ultrasound.frames.codestream import Coding, inspect_codestream

from .make import anatomy, dataset, encoded, with_codestreams

GREY = anatomy()
LARGE = np.tile(GREY, (2, 3))[:, :128]
JPEG, JPEG_2000 = encoded(GREY, "JPEG", quality=95), encoded(GREY, "JPEG2000")


def last_tile_open(codestream: bytes) -> bytes:
    place = codestream.index(b"\xff\x90") + 6
    return codestream[:place] + bytes(4) + codestream[place + 4 :]


def without_end(codestream: bytes) -> bytes:
    return codestream[: codestream.rindex(b"\xff\xd9")]


@pytest.mark.parametrize(
    ("codestream", "coding"),
    [
        (JPEG, Coding.JPEG),
        (JPEG + bytes(100), Coding.JPEG),
        (JPEG + b"\xff" * 7, Coding.JPEG),
        (JPEG[:2] + b"\xff" * 4 + JPEG[2:], Coding.JPEG),
        (bytes(2) + JPEG, Coding.JPEG),
        (JPEG_2000, Coding.JPEG_2000),
        (JPEG_2000 + bytes(100), Coding.JPEG_2000),
        (without_end(JPEG_2000), Coding.JPEG_2000),
        (last_tile_open(JPEG_2000), Coding.JPEG_2000),
        (last_tile_open(JPEG_2000) + bytes(2), Coding.JPEG_2000),
    ],
)
def test_padding_fill_bytes_and_open_ends_are_no_damage(write, codestream, coding):
    found = inspect_codestream(codestream)
    assert (found.coding, found.rows, found.columns, found.components, found.bits) == (coding, 40, 56, 1, 8)
    syntax = uid.JPEGBaseline8Bit if coding is Coding.JPEG else uid.JPEG2000Lossless
    levels = read_frame(write(with_codestreams(dataset(GREY, syntax), [codestream]), "a.dcm")).pixels
    np.testing.assert_allclose(levels, GREY, atol=0 if coding is Coding.JPEG_2000 else 40)


@pytest.mark.parametrize(
    "codestream",
    [
        without_end(JPEG),
        without_end(JPEG)[:-300] + bytes(300),
        JPEG[:300],
        JPEG_2000[:200],
        without_end(JPEG_2000)[:-20],
        last_tile_open(without_end(JPEG_2000)),
        b"\xff\xd8\xff\xd9",
        bytes(500),
    ],
)
def test_a_codestream_without_its_end_is_refused(codestream):
    with pytest.raises((ValueError, struct.error)):
        inspect_codestream(codestream)


@pytest.mark.parametrize("suffix", ["dcm", "jpg"])
def test_a_jpeg_of_more_scans_than_an_encoder_writes_is_not_decoded(write, suffix):
    progressive = encoded(GREY, "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : progressive.rindex(b"\xff\xd9")]
    codestream = without_end(progressive) + scan * 200 + b"\xff\xd9"
    content = with_codestreams(dataset(GREY, uid.JPEGBaseline8Bit), [codestream]) if suffix == "dcm" else codestream
    with pytest.raises(FrameError, match="20[0-9] scans"):
        read_frame(write(content, f"a.{suffix}"))


def test_a_jpeg_2000_of_absurdly_many_tiles_is_not_decoded(write):
    codestream = encoded(LARGE, "JPEG2000")
    tiny = codestream[:24] + struct.pack(">2L", 1, 1) + codestream[32:]
    with pytest.raises(FrameError, match="10,240 tiles"):
        read_frame(write(with_codestreams(dataset(LARGE, uid.JPEG2000Lossless), [tiny]), "a.dcm"))
