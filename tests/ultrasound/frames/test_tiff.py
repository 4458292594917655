from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.ultrasound.frames import FrameError, count_frames, iterate_frames, read_frame

from .make import anatomy

GREY = anatomy()


def tiff(data, bits=8, kind=1, photometric=1, order="<", pages=1, most=None):
    """Uncompressed pages that all show the same data."""
    height, width = GREY.shape
    tags = [
        *((256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)),
        *((277, 3, 1), (278, 4, height), (279, 4, len(data))),
        *([] if most is None else [(281, 3, most)]),
        (339, 3, kind),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHL", tag, field, 1) + struct.pack(f"{order}{'HH' if field == 3 else 'L'}", *value)
        for tag, field, value in ((tag, field, (value, 0) if field == 3 else (value,)) for tag, field, value in tags)
    )
    directory = struct.pack(f"{order}H", len(tags)) + entries
    start, length = 8 + len(data), len(directory) + 4
    following = [start + length * (page + 1) for page in range(pages - 1)] + [0]
    return (
        {"<": b"II", ">": b"MM"}[order]
        + struct.pack(f"{order}HL", 42, start)
        + data
        + b"".join(directory + struct.pack(f"{order}L", place) for place in following)
    )


def twelve_bits(values):
    pairs = values.astype(np.uint16).reshape(-1, 2)
    first, second = pairs[:, 0], pairs[:, 1]
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()


WIDE = GREY.astype(np.uint16) * 257


@pytest.mark.parametrize(
    "content",
    [
        tiff((GREY.astype(int) - 128).astype("i1").tobytes(), 8, 2),
        tiff((255 - GREY).tobytes(), photometric=0),
        tiff(WIDE.tobytes(), 16),
        tiff((65535 - WIDE).tobytes(), 16, photometric=0),
        tiff(WIDE.astype(">u2").tobytes(), 16, order=">"),
        tiff((WIDE.astype(int) - 32768).astype("<i2").tobytes(), 16, 2),
        tiff((WIDE.astype(int) - 32768).astype(">i2").tobytes(), 16, 2, order=">"),
        tiff(twelve_bits(GREY.astype(int) * 4095 // 255), 12),
        tiff((GREY.astype("<u4") * 0x01010101).tobytes(), 32),
        tiff((GREY.astype(np.int64) * 0x01010101 - 2**31).astype("<i4").tobytes(), 32, 2),
        tiff((GREY / 255).astype("<f4").tobytes(), 32, 3),
        tiff((1 - GREY / 255).astype("<f4").tobytes(), 32, 3, photometric=0),
    ],
    ids=[
        *(
            "signed 8",
            "white is zero 8",
            "16",
            "white is zero 16",
            "big endian 16",
            "signed 16",
            "signed big endian 16",
        ),
        *("12", "32", "signed 32", "fractions", "white is zero fractions"),
    ],
)
def test_every_kind_of_sample_gives_the_same_levels(write, content):
    np.testing.assert_allclose(read_frame(write(content, "a.tif")).pixels, GREY, atol=0.1)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (tiff(GREY.astype("<f8").tobytes(), 64, 3), "floating-point numbers of 64 bits"),
        (tiff(GREY.astype("<u8").tobytes(), 64), "unsigned integers of 64 bits"),
        (tiff((65535 - WIDE).astype(">u2").tobytes(), 16, photometric=0, order=">"), "unsigned integers of 16 bits"),
    ],
)
def test_samples_that_are_not_supported_are_named_and_not_called_damaged(write, content, named):
    with pytest.raises(FrameError, match=named) as caught:
        read_frame(write(content, "a.tif"))
    assert "damaged" not in caught.value.reason


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}], ids=str)
def test_each_page_is_read_on_its_own(tmp_path, options):
    pages = [Image.fromarray(anatomy(number)) for number in range(4)]
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    assert count_frames(path) == 4
    for number in (3, 0, 2):
        np.testing.assert_array_equal(read_frame(path, number).pixels, pages[number])
    np.testing.assert_array_equal([frame.pixels for frame in iterate_frames(path)], pages)


def test_many_pages_are_counted_in_one_walk(write):
    path = write(tiff(GREY.tobytes(), pages=20_000), "a.tif")
    start = time.perf_counter()
    assert count_frames(path) == 20_000
    np.testing.assert_array_equal(read_frame(path, 19_999).pixels, GREY)
    assert time.perf_counter() - start < 5


def test_pages_in_a_circle_are_counted_once(write):
    content = bytearray(tiff(GREY.tobytes(), pages=3))
    content[-4:] = struct.pack("<L", 8 + GREY.size)
    assert count_frames(write(bytes(content), "a.tif")) == 3


def test_more_pages_than_anyone_scans_are_refused(write, monkeypatch):
    monkeypatch.setattr("monai_fetalkd.ultrasound.frames.tiff._MOST_PAGES", 10)
    with pytest.raises(FrameError, match="more than 10 pages"):
        count_frames(write(tiff(GREY.tobytes(), pages=11), "a.tif"))


@pytest.mark.parametrize(("most", "white"), [(4095, 4095), (100, 65535), (65535, 65535)])
def test_the_greatest_value_that_a_page_tells_is_white_where_it_holds(tmp_path, most, white):
    values = GREY.astype(np.uint16) * 16
    (tmp_path / "a.tif").write_bytes(tiff(values.tobytes(), 16, most=most))
    np.testing.assert_allclose(read_frame(tmp_path / "a.tif").pixels, values * (255 / white), atol=0.1)
