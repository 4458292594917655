from __future__ import annotations

import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.ultrasound.frames import FrameError, count_frames, iterate_frames, read_frame
from monai_fetalkd.ultrasound.frames.reader import open_frames

from .make import anatomy

GREY = anatomy()
COLOURED = np.stack([anatomy(0), anatomy(1), anatomy(2)], axis=-1)
LUMA = COLOURED @ [0.299, 0.587, 0.114]


def saved(image, name, folder, **options):
    path = folder / name
    image.save(path, **options)
    return str(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif"])
def test_a_grey_picture_is_what_was_saved(tmp_path, suffix):
    frame = read_frame(saved(Image.fromarray(GREY), f"a.{suffix}", tmp_path))
    assert frame.pixels.dtype == np.float32
    np.testing.assert_array_equal(frame.pixels, GREY)
    assert (frame.number, frame.time, frame.region) == (0, None, None)


def test_colours_become_their_luma_and_alpha_is_ignored(tmp_path):
    alpha = np.dstack([COLOURED, anatomy(3)])
    for image in (Image.fromarray(COLOURED), Image.fromarray(alpha)):
        levels = read_frame(saved(image, "a.png", tmp_path)).pixels
        np.testing.assert_allclose(levels, LUMA, atol=0.51)
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(anatomy(3))])
    np.testing.assert_array_equal(read_frame(saved(grey_alpha, "b.png", tmp_path)).pixels, GREY)
    table = Image.fromarray(GREY)
    table.putpalette(np.repeat(np.arange(256, dtype=np.uint8)[::-1], 3).tobytes())
    np.testing.assert_array_equal(read_frame(saved(table, "c.png", tmp_path)).pixels, 255 - GREY)


def test_sixteen_bits_are_stretched_by_their_depth_and_not_by_what_occurs(tmp_path):
    values = GREY.astype(np.uint16) * 100
    levels = read_frame(saved(Image.fromarray(values), "a.png", tmp_path)).pixels
    np.testing.assert_allclose(levels, values / 257, rtol=1e-6)
    fractions = Image.fromarray((GREY / 255).astype(np.float32))
    np.testing.assert_allclose(read_frame(saved(fractions, "b.tif", tmp_path)).pixels, GREY, rtol=1e-5)


def test_a_jpeg_is_close_and_turned_as_its_camera_tells(tmp_path):
    smooth = Image.fromarray(np.add.outer(np.arange(40), 2 * np.arange(56)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    levels = read_frame(saved(smooth, "a.jpg", tmp_path, quality=95, exif=exif)).pixels
    np.testing.assert_allclose(levels, np.rot90(np.asarray(smooth), -1), atol=3)


@pytest.mark.parametrize("suffix", ["tif", "gif"])
def test_the_pages_of_a_picture_are_its_frames(tmp_path, suffix):
    pages = [Image.fromarray(anatomy(number)) for number in range(3)]
    path = saved(pages[0], f"a.{suffix}", tmp_path, save_all=True, append_images=pages[1:])
    assert count_frames(path) == 3
    np.testing.assert_array_equal([frame.pixels for frame in iterate_frames(path)], pages)
    np.testing.assert_array_equal(read_frame(path, 1).pixels, pages[1])
    with pytest.raises(FrameError, match="it holds 3 frames"):
        read_frame(path)


def png_that_claims(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def png(picture=GREY):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "a.png", "it is empty"),
        (b"image,label\na.png,0\n", "a.png", "it is neither a picture .* nor DICOM, NIfTI or MetaImage"),
        (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(30), "a.webp", "WebP is not supported"),
        (b"\0\0\0\x18ftypheic" + bytes(30), "a.png", r"HEIF \(HEIC\) is not supported"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30), "a.jp2", "JPEG 2000 is not supported"),
        (b"PK\3\4" + bytes(30), "a.zip", "ZIP is not supported"),
        (png()[:40], "a.png", "is damaged or cut short"),
        (png()[: len(png()) // 2], "a.png", "its picture is damaged or cut short"),
        (png(GREY * 0), "a.png", "it holds one grey level only"),
        (png(GREY * 0 + 9), "a.png", "it holds one grey level only"),
        (png(GREY[:15]), "a.png", "56 x 15 pixels are too few, 16 a side are the least"),
        (png_that_claims(6_000, 6_000), "a.png", "6000 x 6000 pixels are too many, 32,000,000 are the most"),
        (png_that_claims(12_000, 12_000), "a.png", "12000 x 12000 pixels are too many"),
        (png_that_claims(60_000, 60_000), "a.png", "its pixels are too many, 32,000,000 are the most"),
        (png(), "a.jpg", "it is a PNG file but its name ends in .jpg: rename it"),
        (png(), "a.dcm", "it is a PNG file but its name ends in .dcm: rename it"),
        (png(), "A.NII.GZ", "it is a PNG file but its name ends in .nii.gz: rename it"),
    ],
)
def test_what_is_wrong_with_a_picture_is_told_in_one_sentence(write, content, name, reason):
    path = write(content, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FrameError, match=reason) as caught:
            read_frame(path)
    assert str(caught.value) == f"The frame '{path}' cannot be read: {caught.value.reason}."
    assert "\n" not in str(caught.value)
    assert (caught.value.path, caught.value.__cause__) == (path, None)


@pytest.mark.parametrize("name", ["a", "a.1", "a.PNG"])
def test_a_name_without_a_known_suffix_does_not_matter(write, name):
    np.testing.assert_array_equal(read_frame(write(png(), name)).pixels, GREY)


def test_an_error_comes_out_of_a_worker_process_whole():
    error = pickle.loads(pickle.dumps(FrameError("a.png", "it is empty")))
    assert (error.path, error.reason) == ("a.png", "it is empty")
    assert "'a.png' cannot be read: it is empty" in str(error)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_frame(tmp_path / "none.png")
    with pytest.raises(FrameError, match="cannot be read: Is a directory"):
        read_frame(tmp_path)


def test_the_real_frames_are_what_pillow_reads(shared_dir):
    for path in sorted((shared_dir / "data" / "fetal_planes_db" / "Images").glob("*.png"))[:5]:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_frame(path).pixels, np.asarray(image.convert("L")))


def test_a_jpeg_of_twelve_bits_is_not_called_damaged(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(GREY).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xc0") + 4] = 12
    path.write_bytes(content)
    with pytest.raises(FrameError, match="JPEG of 12 bits is not supported"):
        read_frame(path)


def test_jpeg_ls_in_a_file_of_its_own_is_named_and_not_called_damaged(tmp_path):
    size, scan = b"\x08\0\x30\0\x40\x01\x01\x11\0", b"\x01\x01\0\0\0\0"
    content = b"\xff\xd8\xff\xf7\0\x0b" + size + b"\xff\xda\0\x08" + scan + bytes(60) + b"\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(FrameError, match="JPEG-LS .* not supported") as caught:
        read_frame(tmp_path / "a.jpg")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(("error", "told"), [(MemoryError(), "memory"), (OSError(24, "Too many files"), "Too many")])
def test_a_machine_that_cannot_is_no_damage(tmp_path, monkeypatch, error, told):
    def fail(*_, **__):
        raise error

    Image.fromarray(GREY).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(FrameError, match=told) as caught:
        read_frame(tmp_path / "a.png")
    assert "damaged" not in str(caught.value)


def test_a_damaged_picture_that_is_refused_once_is_refused_again(tmp_path):
    whole = saved(Image.fromarray(GREY), "whole.png", tmp_path)
    with open(whole, "rb") as file:
        content = file.read()
    refused = 0
    for place in range(len(content) // 8, len(content), len(content) // 60):  # past the header
        path = tmp_path / "damaged.png"
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with open_frames(path) as file:
            first, again = told(file), told(file)
        assert again == first
        refused += first is not None
    assert refused > 10


def told(file) -> str | None:
    """Why the first frame of an open file cannot be decoded."""
    try:
        file.frame(0)
    except FrameError as error:
        return error.reason
    return None


def test_an_animated_png_tells_the_times_of_its_frames(tmp_path):
    first, *others = (Image.fromarray(np.roll(GREY, number, axis=1)) for number in range(4))
    first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=[40, 80, 40, 40])
    assert [frame.time for frame in iterate_frames(tmp_path / "a.png")] == [0, 40, 120, 160]
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png", 2).pixels, np.roll(GREY, 2, axis=1))


def test_the_frames_of_an_animated_png_are_counted_whatever_its_header_tells(tmp_path):
    first, second = (Image.fromarray(np.roll(GREY, number, axis=1)) for number in range(2))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second], duration=40)
    data = bytearray((tmp_path / "a.png").read_bytes())
    place = data.index(b"acTL")
    data[place + 4 : place + 8] = struct.pack(">I", 2**31 - 1)
    data[place + 12 : place + 16] = struct.pack(">I", zlib.crc32(data[place : place + 12]))
    (tmp_path / "a.png").write_bytes(data)
    assert count_frames(tmp_path / "a.png") == 2
