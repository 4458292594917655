from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.deployment.stream import Arrival, Smoothing, Stream
from monai_fetalkd.deployment.stream.answers import Durations
from monai_fetalkd.ultrasound.frames import Frame, FrameError

from ..runtime.model import write_model
from .make import DAMAGED, Halves, arrivals, half

LOOP = ["left"] * 10 + ["right"] * 10


def test_an_answer_tells_the_plane_of_its_frame_and_the_smoothed_one():
    answers = list(Stream(Halves(), arrivals(LOOP), smoothing=Smoothing(2)))
    assert [answer.plane for answer in answers] == ["left"] * 12 + ["right"] * 8  # two frames late
    alone = [max(answer.probabilities, key=answer.probabilities.get) for answer in answers]
    assert alone == LOOP
    assert all(answer.probability == max(answer.smoothed.values()) for answer in answers)
    assert [answer.time_ms for answer in answers] == [40.0 * number for number in range(20)]


def test_under_the_threshold_there_is_no_standard_plane():
    answers = list(Stream(Halves(), arrivals(LOOP), smoothing=Smoothing(2), threshold=0.75))
    planes = [answer.plane for answer in answers]
    assert planes[:10] == ["left"] * 10
    assert None in planes[10:13]
    assert planes[-3:] == ["right"] * 3
    assert all((answer.plane is None) == (answer.probability < 0.75) for answer in answers)


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="from 0 to 1"):
        Stream(Halves(), arrivals(LOOP), threshold=threshold)


def test_an_answer_is_one_json_line_without_pixels():
    answer = next(iter(Stream(Halves(), arrivals(["left"]))))
    content = json.loads(json.dumps(answer.to_dict()))
    assert list(content) == [
        *("frame", "time_ms", "plane", "probability", "probabilities", "smoothed", "ms", "dropped"),
    ]
    assert content["plane"] == "left"
    assert sum(content["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("live", [False, True])
def test_a_corrupt_frame_is_counted_and_skipped_with_one_warning_a_kind(live, caplog):
    def source():
        yield from arrivals(["left", DAMAGED, "left"] * 40)
        yield Arrival(120, None, lambda: (_ for _ in ()).throw(FrameError("loop", "it is empty")))

    with caplog.at_level(logging.WARNING):
        stream = Stream(Halves(), source(), live=live)
        answers = list(stream)
    summary = stream.summary
    assert summary.seen == 121
    assert summary.answered == len(answers)
    assert summary.answered + summary.dropped + summary.undecodable == 121
    if not live:
        assert (summary.undecodable, summary.dropped) == (41, 0)
        assert [record.getMessage().split(":")[1].split(".")[0].strip() for record in caplog.records] == [
            "its frame 1 is damaged or cut short",
            "it is empty",
        ]


def test_what_the_file_tells_of_a_frame_goes_before_what_the_source_tells():
    class Regions(Halves):
        def __call__(self, pixels, region=None):
            self.region = region
            return super().__call__(pixels)

    recognizer = Regions()
    frame = Frame(np.arange(400.0).reshape(20, 20), time=70.0, region=(0, 0, 10, 10))
    answer = next(iter(Stream(recognizer, [Arrival(3, 60.0, lambda: frame)])))
    assert (answer.number, answer.time_ms, recognizer.region) == (3, 70.0, (0, 0, 10, 10))


@pytest.mark.parametrize("live", [False, True])
def test_a_stream_that_is_stopped_ends_after_the_current_frame(live):
    stream = Stream(Halves(), arrivals(LOOP * 50), live=live)
    answers = []
    for answer in stream:
        answers.append(answer)
        stream.stop()
    assert len(answers) == stream.summary.answered == 1


def test_the_summary_counts_and_times():
    stream = Stream(Halves(), arrivals(["left", DAMAGED, "right"]))
    assert stream.summary.to_dict() == {
        **dict.fromkeys(("seen", "answered", "dropped", "undecodable"), 0),
        **dict.fromkeys(("median_ms", "p95_ms")),
    }
    assert str(stream.summary) == "0 frames: 0 answered, 0 dropped, 0 undecodable"
    list(stream)
    assert str(stream.summary).startswith("3 frames: 2 answered, 0 dropped, 1 undecodable; ")
    assert 0 < stream.summary.median_ms <= stream.summary.p95_ms


def test_quantiles_of_durations_are_right_to_one_percent():
    values = np.random.default_rng(0).lognormal(1, 1, 10_000)
    durations = Durations()
    for value in values:
        durations.add(value)
    for fraction in (0.05, 0.5, 0.95, 1):
        expected = np.quantile(values, fraction, method="inverted_cdf")
        assert durations.quantile(fraction) == pytest.approx(expected, rel=0.0101)


@pytest.mark.parametrize("level", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["frame", "network"])
def test_a_frame_that_is_not_finite_is_counted_and_spoils_no_other(level, place):
    class Spoilt(Halves):
        def __call__(self, pixels, region=None):
            return super().__call__(pixels) * (level if place == "network" and pixels[0, 0] == 77 else 1)

    def spoilt():
        pixels = half("left").astype(np.float32)
        pixels[0, 0] = level if place == "frame" else 77
        return Frame(pixels)

    source = list(arrivals(["left"] * 4))
    source[1] = Arrival(1, 40.0, spoilt)
    stream = Stream(Spoilt(), source)
    answers = list(stream)
    assert [one.number for one in answers] == [0, 2, 3]
    assert all(np.isfinite(list(one.smoothed.values())).all() for one in answers)
    assert stream.summary.undecodable == 1


def scan(seed: int, depth: float = 1.0, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Speckle in the sector of a curved probe: a deeper scan shows the same probe narrower."""
    y, x = np.mgrid[: shape[0], : shape[1]] * depth
    angle, radius = np.arctan2(x - depth * shape[1] / 2, y + 20), np.hypot(x - depth * shape[1] / 2, y + 20)
    sector = (np.abs(angle) < 0.6) & (radius > 30) & (radius < 130)
    return (sector * np.random.default_rng(seed).integers(20, 200, shape)).astype(np.uint8)


def test_a_cine_that_changes_has_the_answers_of_its_frames_alone(tmp_path):
    still = scan(3, 1.6)
    cine = [
        *(np.zeros((120, 160), np.uint8), scan(1), scan(2)),  # black before the probe touches
        *(still, still, still),  # deeper, and frozen
        *(scan(4, 1.3), scan(5, 1.3, (96, 200)), scan(6)[:, :90], scan(7)),  # another depth, sizes, half a probe
    ]
    regions = [None] * 9 + [(10, 20, 110, 150)]
    recognizer = Recognizer(write_model(tmp_path / "student.onnx", crop=True))
    frames = [Frame(pixels.astype(np.float32), region=region) for pixels, region in zip(cine, regions, strict=True)]
    source = [Arrival(number, None, lambda frame=frame: frame) for number, frame in enumerate(frames)]
    answers = list(Stream(recognizer, source))
    backwards = [recognizer(pixels, region) for pixels, region in list(zip(cine, regions, strict=True))[::-1]][::-1]
    assert [list(answer.probabilities.values()) for answer in answers] == [each.tolist() for each in backwards]
    assert len({answer.probability for answer in answers}) > 5
