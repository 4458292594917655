from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageSequence

from monai_fetalkd.deployment.stream import BestFrames, Overlay, open_movie
from monai_fetalkd.ultrasound.frames import Frame

from .make import NAMES, answer, half


def test_the_best_frame_of_a_plane_is_where_it_is_most_probable_alone_and_smoothed(tmp_path):
    best = BestFrames()
    for one in [
        answer(0, "left", (0.8, 0.2)),
        answer(1, "left", (0.9, 0.1)),
        answer(2, "left", (0.9, 0.1)),  # not better than the one before
        answer(3, "left", (0.01, 0.99), (0.6, 0.4)),  # an outlier
        answer(4, "right", (0.99, 0.01), (0.4, 0.6)),  # it follows better ones
        answer(5, None, (0.95, 0.05), (0.5, 0.5)),  # no standard plane
    ]:
        best.add(one)
    assert {plane: frame.number for plane, frame in best.frames.items()} == {"left": 1}
    assert best.frames["left"].probability == 0.9

    best.write(tmp_path)
    assert best.files == {"left": tmp_path / "left.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["left.png"]
    picture = Image.open(tmp_path / "left.png")
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), half("left", 1))


def test_a_plane_of_any_name_gets_a_file_in_the_folder(tmp_path):
    best = BestFrames()
    probabilities = {"../Fetal brain/4ch": 1.0}
    best.add(answer(0, "../Fetal brain/4ch", (0.9, 0.1), probabilities=probabilities))
    best.write(tmp_path / "best")
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["..%2FFetal brain%2F4ch.png"]


def test_the_best_frames_of_an_earlier_loop_are_removed_and_nothing_else(tmp_path):
    Image.fromarray(half("left")).save(tmp_path / "drawing.png")
    (tmp_path / "notes.png").write_text("no picture")
    for plane in NAMES:
        best = BestFrames()
        best.prepare(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["drawing.png", "notes.png"]
        best.add(answer(0, plane, (0.9, 0.1) if plane == "left" else (0.1, 0.9)))
        best.write(tmp_path)
        assert (tmp_path / f"{plane}.png").exists()


@pytest.mark.parametrize("name", ["Other", "other", " OTHER "])
def test_the_rest_is_no_plane_with_a_best_frame(name):
    best = BestFrames()
    best.add(answer(0, name, (0.9, 0.1), probabilities={name: 0.9, "brain": 0.1}))
    assert best.frames == {}


@pytest.mark.parametrize(
    ("plane", "smoothed", "text"),
    [("left", (0.84, 0.16), "left 84 %"), (None, (0.34, 0.66), "undecided (right 66 %)")],
)
def test_an_answer_for_people_never_gives_the_probability_of_no_plane(plane, smoothed, text):
    assert answer(0, plane, smoothed).text == text


def test_the_best_frames_keep_one_frame_a_plane_however_many_are_better():
    best = BestFrames()
    for number in range(100):
        best.add(answer(number, "left", (0.5 + number / 300, 0.5 - number / 300)))
    assert [(frame.number, frame.pixels.dtype) for frame in best.frames.values()] == [(99, np.uint8)]


@pytest.mark.parametrize("plane", ["left", None])
def test_an_overlay_leaves_the_frame_as_it_is_and_says_the_answer_below(plane):
    frame = answer(0, plane, (0.9, 0.1))
    picture = np.asarray(Overlay(NAMES).draw(frame))
    pixels = half("left", 0)
    np.testing.assert_array_equal(picture[: len(pixels)], np.repeat(pixels[..., None], 3, axis=2))
    strip = picture[len(pixels) :]
    assert strip.max() > 200
    colourful = (strip.max(axis=-1) > strip.min(axis=-1)).any()
    assert colourful == (plane is not None)


def test_the_bar_of_an_overlay_is_as_long_as_the_probability():
    def length(probability):
        wide = Frame(half("left", 0, (40, 400)).astype(np.float32))
        strip = np.asarray(Overlay(NAMES).draw(answer(0, "left", (probability, 1 - probability), frame=wide)))[-6]
        return (strip.max(axis=-1) > strip.min(axis=-1)).sum()

    assert length(1.0) == pytest.approx(2 * length(0.5), abs=2)


def film(path, numbers, shape=(40, 56), fps=25):
    movie = open_movie(path, fps)
    overlay = Overlay(NAMES)
    for number in numbers:
        frame = Frame(half("left", number, shape).astype(np.float32))
        movie.add(overlay.draw(answer(number, "left", (0.9, 0.1), frame=frame)), number)
    movie.close()


def test_a_video_runs_as_long_as_its_source_though_frames_are_missing(tmp_path):
    cv2 = pytest.importorskip("cv2")
    film(tmp_path / "loop.mp4", [0, 1, 5, 9], shape=(41, 57))
    capture = cv2.VideoCapture(str(tmp_path / "loop.mp4"))
    count = 0
    while capture.read()[0]:
        count += 1
    assert (count, capture.get(cv2.CAP_PROP_FPS)) == (10, 25)
    assert [path.name for path in tmp_path.iterdir()] == ["loop.mp4"]


@pytest.mark.parametrize(
    ("times", "count"), [([0.0, 500.0, 510.0, 2000.0], 21), ([0.0, 3_600_000.0, 3_600_100.0, 3_600_500.0], 107)]
)
def test_a_video_keeps_step_with_the_times_of_its_source_and_cuts_long_pauses(tmp_path, times, count):
    cv2 = pytest.importorskip("cv2")
    movie = open_movie(tmp_path / "loop.mp4", fps=10)
    for number, time in enumerate(times):
        movie.add(Image.effect_noise((64, 48), 60).convert("RGB"), number, time)
    movie.close()
    capture = cv2.VideoCapture(str(tmp_path / "loop.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == count


@pytest.mark.parametrize(("frames", "step"), [(5, 1), (1000, 8)])
def test_a_gif_holds_a_bounded_choice_of_frames_and_runs_as_long_as_its_source(tmp_path, frames, step):
    film(tmp_path / "loop.gif", range(frames), shape=(20, 24))
    picture = Image.open(tmp_path / "loop.gif")
    durations = []
    for number in range(picture.n_frames):
        picture.seek(number)
        durations.append(picture.info["duration"])
    assert picture.n_frames == -(-frames // step)
    assert sum(durations) == 40 * step * picture.n_frames


@pytest.mark.parametrize(("interval", "frames"), [(33.3, 30), (16.7, 60), (125.0, 8), (8.0, 125)])
def test_a_gif_keeps_step_with_the_times_of_its_frames(tmp_path, interval, frames):
    movie = open_movie(tmp_path / "loop.gif")
    for number in range(frames):
        movie.add(Image.effect_noise((24, 20), 60).convert("RGB"), number, interval * number)
    movie.close()
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(Image.open(tmp_path / "loop.gif"))]
    assert min(durations) >= 20
    assert sum(durations) == pytest.approx(interval * frames, abs=35)


@pytest.mark.parametrize("shape", [(16, 5000), (5000, 16)])
def test_frames_that_are_very_long_are_drawn(tmp_path, shape):
    film(tmp_path / "loop.gif", range(2), shape)
    assert Image.open(tmp_path / "loop.gif").n_frames == 2


def test_a_film_that_is_incomplete_is_told(tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    movie = open_movie(tmp_path / "loop.mp4")
    for number in range(3):
        movie.add(Image.effect_noise((64, 48), 60).convert("RGB"), number)
    release = movie._writer.release

    def release_and_lose():
        release()
        (part,) = tmp_path.iterdir()
        part.write_bytes(part.read_bytes()[:200])

    movie._writer = type("Full", (), {"release": staticmethod(release_and_lose)})
    with pytest.raises(OSError, match="loop.mp4"):
        movie.close()
    assert list(tmp_path.iterdir()) == []
    assert cv2


def test_frames_of_another_size_are_fitted_to_the_first(tmp_path):
    movie = open_movie(tmp_path / "loop.gif")
    for number, size in enumerate([(600, 300), (300, 300)]):
        movie.add(Image.effect_noise(size, 60).convert("RGB"), number)
    movie.close()
    assert Image.open(tmp_path / "loop.gif").size == (480, 240)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_without_a_frame_there_is_no_film(tmp_path, suffix):
    if suffix == ".mp4":
        pytest.importorskip("cv2")
    film(tmp_path / f"loop{suffix}", [])
    assert list(tmp_path.iterdir()) == []


def test_a_film_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif file, not 'loop\.mov'"):
        open_movie("loop.mov")
