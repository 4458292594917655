from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.pixels import convert_color_space

from monai_fetalkd.ultrasound.frames import FrameError, FrameWarning, read_frame

from ..make import anatomy, compressed, dataset, encoded, transcoded, with_codestreams

GREY = anatomy()
SMOOTH = np.add.outer(3 * np.arange(40), 2 * np.arange(56)).astype(np.uint8)
COLOURED = np.stack([SMOOTH, 255 - SMOOTH, SMOOTH // 2], axis=-1)
LUMA = np.asarray(Image.fromarray(COLOURED).convert("L"))
YBR = convert_color_space(COLOURED, "RGB", "YBR_FULL")


def renamed(path: str, old: bytes, new: bytes) -> str:
    """Replace bytes of a file by as many others."""
    with open(path, "rb+") as file:
        content = file.read()
        assert content.count(old) == 1
        file.seek(content.index(old))
        file.write(new)
    return path


@pytest.mark.parametrize("vr", [b"OB", b"UN", b"OW"])
def test_the_length_of_the_pixel_data_is_no_pixel_whatever_its_representation(write, vr):
    path = renamed(write(dataset(GREY), "a.dcm"), b"\xe0\x7f\x10\x00OB", b"\xe0\x7f\x10\x00" + vr)
    np.testing.assert_array_equal(read_frame(path).pixels, GREY)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEG2000Lossless, uid.RLELossless, uid.JPEGLSLossless])
def test_the_planar_configuration_is_that_of_uncompressed_pixels(write, tmp_path, syntax, planar):
    if syntax == uid.JPEGLSLossless:
        content = transcoded(dataset(COLOURED), syntax, tmp_path)
        path = renamed(write(content, "a.dcm"), b"\x28\0\6\0US\2\0\0\0", b"\x28\0\6\0US\2\0" + bytes([planar, 0]))
    else:
        file = dataset(COLOURED) if syntax == uid.RLELossless else compressed(COLOURED, syntax)
        if syntax == uid.RLELossless:
            file.compress(syntax, generate_instance_uid=False)
        file.PlanarConfiguration = planar
        path = write(file, "a.dcm")
    np.testing.assert_allclose(read_frame(path).pixels, LUMA, atol=3)


@pytest.mark.parametrize(
    ("picture", "transform", "label"),
    [
        (COLOURED, 1, "YBR_FULL_422"),
        (COLOURED, 1, "YBR_RCT"),
        (COLOURED, 1, "RGB"),
        (COLOURED, 0, "RGB"),
        (YBR, 0, "YBR_FULL"),
        (YBR, 0, "YBR_FULL_422"),
    ],
)
def test_the_colour_transform_of_jpeg_2000_counts_before_the_label(write, picture, transform, label):
    file = dataset(COLOURED, uid.JPEG2000Lossless, PhotometricInterpretation=label)
    file = with_codestreams(file, [encoded(picture, "JPEG2000", mct=transform)])
    np.testing.assert_allclose(read_frame(write(file, "a.dcm")).pixels, LUMA, atol=1)


def without_markers(jpeg: bytes) -> bytes:
    kept, place = jpeg[:2], 2
    while jpeg[place + 1] != 0xDA:
        length = 2 + struct.unpack_from(">H", jpeg, place + 2)[0]
        kept += b"" if 0xE0 <= jpeg[place + 1] <= 0xEF else jpeg[place : place + length]
        place += length
    return kept + jpeg[place:]


def adobe(transform: int) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


def jpeg(transformed: bool, subsampling: int = 0, marker: bytes = b"") -> bytes:
    """A JPEG of ``COLOURED`` in luma and chroma, or with its red, green and blue as they are."""
    image = Image.fromarray(COLOURED)
    if not transformed:
        image = Image.merge("YCbCr", image.split())
    stream = without_markers(encoded(image, "JPEG", quality=98, subsampling=subsampling))
    return stream[:2] + marker + stream[2:]


@pytest.mark.parametrize(
    ("codestream", "label"),
    [
        (jpeg(True, marker=adobe(1)), "YBR_FULL_422"),
        (jpeg(True, marker=adobe(1)), "RGB"),
        (jpeg(False, marker=adobe(0)), "YBR_FULL_422"),
        (jpeg(False, marker=adobe(0)), "RGB"),
        (jpeg(True, subsampling=2), "RGB"),
        (jpeg(True), "YBR_FULL_422"),
        (jpeg(False), "RGB"),
    ],
    ids=["adobe", "adobe, RGB", "adobe without", "adobe without, RGB", "subsampled", "label", "label, RGB"],
)
def test_the_markers_and_the_subsampling_of_a_jpeg_count_before_the_label(write, codestream, label):
    file = dataset(COLOURED, uid.JPEGBaseline8Bit, PhotometricInterpretation=label)
    np.testing.assert_allclose(read_frame(write(with_codestreams(file, [codestream]), "a.dcm")).pixels, LUMA, atol=4)


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelRepresentation": 1},
        {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11},
        {"BitsAllocated": 16, "BitsStored": 8, "HighBit": 15},
    ],
    ids=["signed", "twelve bits", "high bit"],
)
def test_sign_and_bits_of_a_lossy_jpeg_are_those_of_its_codestream(write, elements):
    file = with_codestreams(dataset(SMOOTH, uid.JPEGBaseline8Bit, **elements), [encoded(SMOOTH, "JPEG", quality=95)])
    np.testing.assert_allclose(read_frame(write(file, "a.dcm")).pixels, SMOOTH, atol=4)


@pytest.mark.parametrize("run_length", [False, True])
def test_values_in_the_upper_bits_are_shifted_down(write, run_length):
    file = dataset(GREY.astype(np.uint16) << 8, BitsStored=12, HighBit=15)
    if run_length:
        file.compress(uid.RLELossless, generate_instance_uid=False)
    np.testing.assert_allclose(read_frame(write(file, "a.dcm")).pixels, GREY * (16 * 255 / 4095), atol=0.01)


def test_a_label_of_subsampling_that_the_length_contradicts_is_corrected(write):
    with pytest.warns(FrameWarning, match="YBR_FULL_422"):
        levels = read_frame(write(dataset(YBR, PhotometricInterpretation="YBR_FULL_422"), "a.dcm")).pixels
    np.testing.assert_allclose(levels, LUMA, atol=1)


@pytest.mark.parametrize(
    "keyword", ["PixelRepresentation", "SamplesPerPixel", "BitsStored", "HighBit", "PhotometricInterpretation"]
)
def test_what_a_header_leaves_out_has_its_only_sensible_value(write, keyword):
    file = dataset(GREY)
    delattr(file, keyword)
    np.testing.assert_array_equal(read_frame(write(file, "a.dcm")).pixels, GREY)


def test_colours_without_a_planar_configuration_lie_pixel_by_pixel(write):
    file = dataset(COLOURED)
    del file.PlanarConfiguration
    np.testing.assert_array_equal(read_frame(write(file, "a.dcm")).pixels, LUMA)


@pytest.mark.parametrize("keyword", ["BitsAllocated", "Rows", "Columns"])
def test_what_cannot_be_known_is_named(write, keyword):
    file = dataset(GREY)
    delattr(file, keyword)
    with pytest.raises(FrameError, match=f"lacks {keyword}"):
        read_frame(write(file, "a.dcm"))


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ({"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3}, "HSV"),
        ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel is 1 for RGB"),
        ({"SamplesPerPixel": 4}, "SamplesPerPixel is 4"),
        ({"BitsAllocated": 12}, "in 12"),
        ({"BitsStored": 9}, "9 bits in 8"),
    ],
)
def test_what_is_not_supported_or_contradicts_itself_is_named_and_not_called_damaged(write, elements, named):
    with pytest.raises(FrameError, match=named) as caught:
        read_frame(write(dataset(GREY, **elements), "a.dcm"))
    assert "damaged" not in caught.value.reason


@pytest.mark.parametrize(
    ("label", "codestream"),
    [
        (uid.JPEGBaseline8Bit, encoded(GREY, "JPEG2000")),
        (uid.JPEG2000Lossless, encoded(GREY, "JPEG2000", no_jp2=False)),
        (uid.ExplicitVRLittleEndian, encoded(GREY, "JPEG2000")),
    ],
    ids=["as JPEG", "in a JP2 file", "as uncompressed"],
)
def test_the_codestream_decides_what_it_is(write, label, codestream):
    path = write(with_codestreams(dataset(GREY, uid.JPEG2000Lossless), [codestream]), "a.dcm")
    name = str(uid.JPEG2000Lossless).encode()
    renamed(path, name, str(label).encode().ljust(len(name), b"\0"))
    np.testing.assert_array_equal(read_frame(path).pixels, GREY)


def test_pixels_that_are_not_compressed_as_told_are_told(write):
    name = str(uid.ExplicitVRLittleEndian).encode() + b"\0"
    path = renamed(write(dataset(GREY), "a.dcm"), name, str(uid.RLELossless).encode().ljust(len(name), b"\0"))
    with pytest.raises(FrameError, match="not compressed"):
        read_frame(path)


def test_bytes_of_run_length_code_that_no_frame_needs_are_not_decoded(write):
    code = struct.pack("<LL", 1, 64) + bytes(56) + b"\x81\x00" * 20_000
    with pytest.raises(FrameError, match="40,064 bytes"):
        read_frame(write(with_codestreams(dataset(GREY, uid.RLELossless), [code]), "a.dcm"))


@pytest.mark.filterwarnings("ignore::monai_fetalkd.ultrasound.frames.FrameWarning")
@pytest.mark.parametrize("keyword", ["PlanarConfiguration", "PixelRepresentation", "HighBit"])
def test_an_attribute_that_cannot_be_is_left_out(write, keyword):
    np.testing.assert_array_equal(read_frame(write(dataset(COLOURED, **{keyword: 99}), "a.dcm")).pixels, LUMA)


@pytest.mark.parametrize("label", ["MONOCHROME2", "MONOCHROME1", "RGB", "YBR_FULL_422"])
@pytest.mark.parametrize(("kind", "syntax"), [("JPEG", uid.JPEGBaseline8Bit), ("JPEG2000", uid.JPEG2000Lossless)])
@pytest.mark.parametrize(("picture", "expected"), [(GREY, GREY), (COLOURED, LUMA)])
def test_the_codestream_tells_whether_there_are_colours(write, picture, expected, kind, syntax, label):
    if label == "MONOCHROME1" and picture is GREY:
        expected = 255.0 - expected
    header = dataset(GREY if label.startswith("MONO") else COLOURED, syntax, PhotometricInterpretation=label)
    options = {"mct": 1} if kind == "JPEG2000" and picture is COLOURED else {"quality": 100} if kind == "JPEG" else {}
    path = write(with_codestreams(header, [encoded(picture, kind, **options)]), "a.dcm")
    np.testing.assert_allclose(read_frame(path).pixels, expected, atol=8)


@pytest.mark.parametrize("count", ["0", "-1", ""])
def test_a_number_of_frames_that_is_none_leaves_one_frame(write, count):
    path = write(dataset(GREY, NumberOfFrames=count), f"{count}.dcm")
    np.testing.assert_array_equal(read_frame(path).pixels, GREY)
