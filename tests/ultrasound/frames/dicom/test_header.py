from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from pydicom import dcmwrite, uid

from monai_fetalkd.ultrasound.frames import FrameError, FrameWarning, count_frames, read_frame

from ..make import anatomy, dataset, encoded, with_codestreams

GREY = anatomy()


def with_element(content: bytes, group: int, element: int, value: bytes, undefined: bool = False) -> bytes:
    """A file of implicit representation with one more element before its pixel data."""
    place = content.index(b"\xe0\x7f\x10\x00")
    length = 0xFFFFFFFF if undefined else len(value)
    return content[:place] + struct.pack("<HHL", group, element, length) + value + content[place:]


@pytest.fixture
def content(write):
    with open(write(dataset(GREY, uid.ImplicitVRLittleEndian), "a.dcm"), "rb") as file:
        return file.read()


@pytest.mark.parametrize("element", [0x00281050, 0x00281051, 0x00181065])
def test_an_element_of_absurdly_many_numbers_is_not_parsed(write, content, element):
    path = write(with_element(content, element >> 16, element & 0xFFFF, b"1\\" * 200_000), "a.dcm")
    np.testing.assert_array_equal(read_frame(path).pixels, GREY)


@pytest.mark.parametrize("undefined", [True, False])
def test_a_sequence_of_absurdly_many_items_is_refused_before_it_is_parsed(write, content, undefined):
    items = b"\xfe\xff\x00\xe0" + bytes(4)
    end = b"\xfe\xff\xdd\xe0" + bytes(4)
    small = write(with_element(content, 0x5200, 0x9230, items * 100 + end * undefined, undefined), "small.dcm")
    np.testing.assert_array_equal(read_frame(small).pixels, GREY)
    large = write(with_element(content, 0x5200, 0x9230, items * 60_000 + end * undefined, undefined), "large.dcm")
    with pytest.raises(FrameError, match="more than 50,000 items"):
        read_frame(large)


def test_a_small_file_that_inflates_to_gigabytes_is_refused(write):
    with open(write(dataset(GREY, uid.DeflatedExplicitVRLittleEndian), "a.dcm"), "rb") as file:
        content = file.read()
    start = content.index(str(uid.DeflatedExplicitVRLittleEndian).encode()) + 22
    place = 144 + struct.unpack_from("<L", content, 140)[0]
    assert start <= place
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = b"".join(packer.compress(bytes(2**24)) for _ in range(9)) + packer.flush()
    with pytest.raises(FrameError, match="inflates to more than 134,217,728 bytes"):
        read_frame(write(content[:place] + zeros, "a.dcm"))


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.8.1", "1.3.46.670589.33.1.4.1", "1.2.840.10008.1.2.4.201"]
)
def test_a_transfer_syntax_without_a_decoder_is_named_and_told_what_to_do(write, syntax):
    file = with_codestreams(dataset(GREY, uid.JPEG2000Lossless), [encoded(GREY, "JPEG2000")])
    file.file_meta.TransferSyntaxUID = syntax
    path = write(b"", "a.dcm")
    dcmwrite(path, file, implicit_vr=False, little_endian=True, force_encoding=True)
    with pytest.raises(FrameError, match="compression is not supported") as caught:
        count_frames(path)
    assert uid.UID(syntax).name in caught.value.reason
    assert "convert" in caught.value.reason
    assert "pip install" not in caught.value.reason


def test_floating_point_pixels_are_named(write):
    with open(write(dataset(GREY), "a.dcm"), "rb") as file:
        content = file.read().replace(b"\xe0\x7f\x10\x00OB", b"\xe0\x7f\x08\x00OF")
    with pytest.raises(FrameError, match="FloatPixelData"):
        read_frame(write(content, "a.dcm"))


def test_a_number_of_frames_that_is_none_means_one(write, content):
    frames = struct.pack("<HHL", 0x28, 8, 4) + b"many"
    place = content.index(struct.pack("<HHL", 0x28, 0x10, 2))
    with pytest.warns(FrameWarning, match="NumberOfFrames"):
        assert count_frames(write(content[:place] + frames + content[place:], "a.dcm")) == 1
