from __future__ import annotations

import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from monai_fetalkd.deployment.stream import open_source, paced
from monai_fetalkd.deployment.stream.pipes import iterate_pictures, iterate_raw
from monai_fetalkd.ultrasound.frames import FrameError, read_frame

from ...ultrasound.frames.make import anatomy, compressed, dataset
from .make import arrivals, encoded, half

CINE = np.stack([anatomy(number) for number in range(5)])


def decoded(source):
    """The grey levels of each frame, None for those that cannot be decoded."""

    def levels(arrival):
        try:
            return arrival.decode().pixels
        except FrameError:
            return None

    return [levels(arrival) for arrival in source]


def same(found, expected):
    assert [pixels is None for pixels in found] == [pixels is None for pixels in expected]
    for one, other in zip(found, expected, strict=True):
        if other is not None:
            np.testing.assert_array_equal(one, other)


class Trickle(BytesIO):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def read(self, size=-1):
        return super().read(min(size, 777))


@pytest.fixture
def cine(tmp_path):
    def write(**elements):
        dataset(CINE, **elements).save_as(tmp_path / "loop.dcm", enforce_file_format=True)
        return str(tmp_path / "loop.dcm")

    return write


@pytest.mark.parametrize(
    ("elements", "fps", "rate", "times"),
    [
        ({"FrameTime": "40"}, None, 25, [0, 40, 80, 120, 160]),
        ({"FrameTime": "40"}, 10, 10, [0, 100, 200, 300, 400]),
        ({"FrameTimeVector": [0, 10, 10, 10, 50]}, None, 50, [0, 10, 20, 30, 80]),
        ({"CineRate": 50}, None, 50, [0, 20, 40, 60, 80]),
        ({}, 10, 10, [0, 100, 200, 300, 400]),
        ({}, None, None, [None] * 5),
    ],
)
def test_the_frames_of_a_cine_come_at_its_rate_or_at_the_one_given(cine, elements, fps, rate, times):
    with open_source(cine(**elements), fps=fps) as source:
        came = list(source)
        assert (source.live, source.fps) == (False, rate)
        assert [arrival.number for arrival in came] == list(range(5))
        assert [arrival.time for arrival in came] == times
        same(decoded(came), CINE)


def test_a_corrupt_frame_of_a_cine_costs_no_other(tmp_path):
    file = compressed(CINE, uid.JPEGBaseline8Bit)
    frames = list(generate_frames(file.PixelData, number_of_frames=5))
    file.PixelData = encapsulate([*frames[:2], b"\xff\xd8" + bytes(300), *frames[3:]])
    path = tmp_path / "loop.dcm"
    file.save_as(path, enforce_file_format=True)
    with open_source(str(path)) as source:
        found = decoded(source)
    same(found, [read_frame(path, n).pixels if n != 2 else None for n in range(5)])


def test_a_folder_is_read_in_natural_order(tmp_path):
    for number in (1, 2, 10):
        Image.fromarray(half("left", number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "frame3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with open_source(str(tmp_path), fps=20) as source:
        came = list(source)
    assert [arrival.time for arrival in came] == [0, 50, 100, 150]
    same(decoded(came), [half("left", 1), half("left", 2), None, half("left", 10)])


def test_a_frame_that_is_deleted_meanwhile_costs_no_other(tmp_path):
    for number in range(3):
        Image.fromarray(half("left", number)).save(tmp_path / f"{number}.png")
    with open_source(str(tmp_path)) as source:
        (tmp_path / "1.png").unlink()
        same(decoded(source), [half("left", 0), None, half("left", 2)])


@pytest.mark.parametrize(("fps", "rate"), [(None, 1000), (25, 25)])
def test_the_rate_that_the_user_gives_counts_before_that_of_a_video(tmp_path, fps, rate):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "loop.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 1000.0, (64, 48))
    for number in range(3):
        writer.write(np.repeat(half("left", number, (48, 64))[..., None], 3, axis=2))
    writer.release()
    with open_source(str(tmp_path / "loop.avi"), fps=fps) as source:
        assert (source.fps, [arrival.time for arrival in source]) == (rate, [1000 * n / rate for n in range(3)])


def test_a_video_is_read_with_its_times(tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "loop.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for number in range(6):
        writer.write(np.repeat(half("left" if number < 3 else "right", number, (48, 64))[..., None], 3, axis=2))
    writer.release()
    with open_source(str(tmp_path / "loop.avi")) as source:
        came = list(source)
    assert (source.live, source.fps) == (False, 20)
    assert [arrival.time for arrival in came] == pytest.approx([0, 50, 100, 150, 200, 250])
    for number, pixels in enumerate(decoded(came)):
        expected = half("left" if number < 3 else "right", number, (48, 64))
        assert abs(pixels - expected).mean() < 20  # it was compressed


MULTIPART = b"\r\n--b\r\nContent-Type: image/jpeg\r\nContent-Length: 1234\r\n\r\n"
PNG, JPEG = encoded(half("left", 1), "PNG"), encoded(half("right", 2), "JPEG")
LEFT, RIGHT = half("left", 1), np.asarray(Image.open(BytesIO(JPEG)))


def jpeg_with_preview():
    """A JPEG file that holds another in a segment before its pixels, as cameras write them."""
    preview = b"Exif\0\0" + JPEG
    return JPEG[:2] + b"\xff\xe1" + (len(preview) + 2).to_bytes(2) + preview + JPEG[2:]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (PNG, [LEFT]),
        (PNG + JPEG + PNG, [LEFT, RIGHT, LEFT]),
        (PNG + jpeg_with_preview() + PNG, [LEFT, RIGHT, LEFT]),
        (PNG + encoded(half("left", 1), "JPEG", progressive=True, quality=100) + PNG, [LEFT, "any", LEFT]),
        (b"junk" + PNG + bytes(3000) + JPEG, [LEFT, RIGHT]),  # text and padding are no frames
        (b"\x80junk" + PNG + b"\x80" * 3000 + JPEG, [None, LEFT, None, RIGHT]),
        (MULTIPART + PNG + MULTIPART + JPEG + b"\r\n--b--\r\n", [LEFT, RIGHT]),
        (MULTIPART + PNG + MULTIPART + JPEG[20:] + MULTIPART + JPEG, [LEFT, None, RIGHT]),
        (PNG[:900] + PNG + JPEG, [None, LEFT, RIGHT]),
        (JPEG[:800] + JPEG + PNG, [None, RIGHT, LEFT]),
        (JPEG[:200] + JPEG + JPEG + PNG, [None, RIGHT, RIGHT, LEFT]),
        (PNG + JPEG + PNG[:900], [LEFT, RIGHT, None]),
        (PNG[:400] + bytes(50) + PNG[450:] + JPEG, [None, RIGHT]),
        (b"no picture at all", []),
    ],
)
@pytest.mark.parametrize("stream", [BytesIO, Trickle])
def test_pictures_on_a_pipe_are_told_apart_and_a_damaged_one_costs_no_other(data, expected, stream):
    found = decoded(iterate_pictures(stream(data)))
    same(found, [pixels if isinstance(own, str) else own for own, pixels in zip(expected, found, strict=True)])


@pytest.mark.parametrize("stream", [BytesIO, Trickle])
def test_bare_grey_levels_on_a_pipe_are_frames_and_the_last_may_be_cut_short(stream):
    data = CINE.tobytes()[:-100]
    came = list(iterate_raw(stream(data), width=56, height=40))
    same(decoded(came), [*CINE[:4], None])
    times = [arrival.time for arrival in came]
    assert times[0] == 0
    assert times == sorted(times)


def test_a_pipe_without_an_end_of_picture_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("monai_fetalkd.deployment.stream.pipes._LARGEST", 100_000)
    found = decoded(iterate_pictures(Trickle(PNG[:-12] + bytes(200_000) + PNG)))
    same(found[-1:], [LEFT])
    assert set(map(type, found[:-1])) == {type(None)}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing.dcm", {}, "There is no file, folder or device 'nothing.dcm'"),
        ("junk.mp4", {}, "junk.mp4' cannot be read: it is neither a picture .* nor a video"),
        ("cut.mp4", {}, "The video 'cut.mp4' cannot be opened: it is damaged or cut short"),
        ("scan.webp", {}, "WebP is not supported"),
        ("rtsp://probe/1", {}, "ffmpeg -i rtsp://probe/1"),
        ("empty.dcm", {}, "empty.dcm' cannot be read: it is empty"),
        ("loop.dcm", {"raw": (56, 40)}, "standard input"),
        ("99", {}, "The capture device 99 cannot be opened"),
    ],
)
def test_what_is_no_source_is_refused_in_one_sentence(tmp_path, monkeypatch, cine, name, options, message):
    pytest.importorskip("cv2")
    cine()
    (tmp_path / "junk.mp4").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(900))
    (tmp_path / "scan.webp").write_bytes(b"RIFF\x24\0\0\0WEBPVP8 ")
    (tmp_path / "empty.dcm").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message), open_source(name, **options):
        pass


@pytest.mark.parametrize("name", ["notes.txt", "loop.m3u8", "loop.avi", "loop.mp4", "art.ans"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_text_is_no_video_whatever_its_name(tmp_path, name, encoding):
    pytest.importorskip("cv2")
    (tmp_path / name).write_text("#EXTM3U\nhttp://camera.example/loop.ts\n" * 20, encoding=encoding)
    with pytest.raises(ValueError, match=name), open_source(str(tmp_path / name)):
        pass


@pytest.fixture
def video(tmp_path):
    """Writes a video of 30 frames in Motion JPEG, of which some have lost their header."""
    cv2 = pytest.importorskip("cv2")

    def write(damaged, kept=1.0):
        path = tmp_path / "loop.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
        for number in range(30):
            writer.write(np.repeat(half("left", number, (48, 64))[..., None], 3, axis=2))
        writer.release()
        data = bytearray(path.read_bytes())
        starts = [match.start() for match in re.finditer(b"\xff\xd8\xff", data)]
        for number in damaged:
            data[starts[number] : starts[number] + 600] = bytes(600)
        path.write_bytes(data[: int(kept * len(data))])
        return str(path)

    return write


@pytest.mark.parametrize("damaged", [[10], [0], [10, 11, 12, 20], [0, 1, 28]])
def test_damaged_frames_of_a_video_cost_no_other(video, damaged):
    with open_source(video(damaged)) as source:
        came = list(source)
    assert [arrival.number for arrival in came] == list(range(30))
    assert [number for number, pixels in enumerate(decoded(came)) if pixels is None] == damaged
    last = came[-1].time - came[0].time
    assert last == pytest.approx(50 * 29, abs=50 * len(damaged))


def test_a_video_that_ends_early_is_told(video, caplog):
    with open_source(video([], kept=0.5)) as source:
        assert 5 < len(list(source)) < 25
    assert "30 frames" in caplog.text


def test_a_gif_tells_how_long_each_frame_lasts(tmp_path):
    first, *others = [Image.fromarray(half("left", number)) for number in range(4)]
    first.save(tmp_path / "loop.gif", save_all=True, append_images=others, duration=[100, 40, 60, 200])
    with open_source(str(tmp_path / "loop.gif")) as source:
        came = list(source)
    assert [arrival.time for arrival in came] == [0, 100, 140, 200]
    assert source.fps == pytest.approx(15)


def test_closed_standard_input_is_told(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ValueError, match="Standard input is closed"), open_source("-"):
        pass


def test_a_video_without_opencv_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    (tmp_path / "loop.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(range(256)))
    with pytest.raises(ImportError, match="pip install opencv"), open_source(str(tmp_path / "loop.mp4")):
        pass


def test_frames_of_an_absurd_size_are_refused():
    with pytest.raises(FrameError, match="too many"):
        next(iterate_raw(BytesIO(), 100_000, 100_000))


def test_paced_frames_come_in_order_and_not_before_their_time():
    from time import monotonic

    start = monotonic()
    came = [(arrival.number, monotonic() - start) for arrival in paced(arrivals(["left"] * 5), speed=4)]
    assert [number for number, _ in came] == list(range(5))
    assert all(moment >= 0.04 / 4 * number for number, moment in came)


def test_frames_without_times_cannot_be_paced():
    with pytest.raises(ValueError, match="--fps"):
        list(paced(arrivals(["left"], interval=None)))


def test_files_of_a_folder_that_are_no_frames_are_counted_and_told(tmp_path, caplog):
    for name in ("1.png", "notes.txt", "list.csv", ".hidden"):
        (tmp_path / name).write_bytes(PNG if name.endswith(".png") else b"x")
    with open_source(str(tmp_path)) as source:
        assert len(list(source)) == 1
    assert re.search("2 other file.*list.csv", caplog.text)


def test_an_animation_on_standard_input_is_read_too(tmp_path):
    first, second = (Image.fromarray(half(side, 0)) for side in ("left", "right"))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second], duration=40)
    same(decoded(iterate_pictures(Trickle((tmp_path / "a.png").read_bytes()))), [half("left", 0)])
