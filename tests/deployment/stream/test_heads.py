"""Heads in a stream: discs of known size, told in mm where the size of a pixel is known."""

import json
import math

import numpy as np
import pytest

from monai_fetalkd.deployment.stream import Arrival, HeadOverlay, HeadStream
from monai_fetalkd.ultrasound.frames import Frame, FrameError

RADIUS = 30


class Bright:
    class_names = ("background", "head")

    def __call__(self, pixels):
        return (pixels > 100).astype(np.uint8)


def disc(radius=RADIUS, shape=(100, 140)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return 200.0 * ((rows - 50) ** 2 + (columns - 70) ** 2 < radius**2)


def stream(*frames, live=False):
    arrivals = (Arrival(number, 40.0 * number, lambda frame=frame: frame) for number, frame in enumerate(frames))
    return HeadStream(Bright(), arrivals, live)


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [
        (None, "pixels", 2 * math.pi * RADIUS),
        ((0.5, 0.5), "mm", math.pi * RADIUS),
        ((0.5, 0.25), "mm", 72.66),  # an ellipse of 15 and 7.5 mm, by Ramanujan's second formula
    ],
)
def test_circumference_and_its_unit(size, unit, expected):
    (answer,) = stream(Frame(disc(), pixel_size=size))
    assert answer.unit == unit
    assert answer.circumference == pytest.approx(expected, rel=5e-3)
    assert answer.ellipse.center == pytest.approx((50, 70), abs=0.1)  # in pixels, to be drawn
    assert unit in answer.text


def test_no_head_is_told():
    (answer,) = stream(Frame(np.zeros((50, 50))))
    assert (answer.ellipse, answer.circumference) == (None, None)
    content = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert content["circumference"] is None


def test_a_line_holds_all_but_the_pixels():
    (answer,) = stream(Frame(disc()))
    content = json.loads(json.dumps(answer.to_dict()))
    assert list(content) == ["frame", "time_ms", "circumference", "unit", "ellipse", "ms", "dropped"]
    assert content["ellipse"]["semi_axes"] == pytest.approx([RADIUS, RADIUS], abs=0.2)


def test_frames_are_counted_and_damaged_ones_skipped():
    def damaged():
        raise FrameError("loop", "it is empty")

    heads = HeadStream(Bright(), [Arrival(0, None, damaged), Arrival(1, None, lambda: Frame(disc()))])
    assert [answer.number for answer in heads] == [1]
    assert (heads.summary.seen, heads.summary.answered, heads.summary.undecodable) == (2, 1, 1)


def test_overlay_shows_mask_ellipse_and_text():
    (head,), (empty,) = stream(Frame(disc())), stream(Frame(np.zeros((100, 140))))
    drawn, plain = (np.asarray(HeadOverlay().draw(answer)) for answer in (head, empty))
    assert drawn.shape == plain.shape
    assert drawn.shape[0] > 100
    assert drawn[50, 70, 0] > drawn[50, 70, 2]  # shaded
    assert (drawn[50, 70 + RADIUS - 2 : 70 + RADIUS + 2] == (255, 212, 0)).all(axis=1).any()
    assert not plain[:100].any()
    assert plain[100:].any()


def test_other_classes_are_refused():
    class Three(Bright):
        class_names = ("background", "head", "abdomen")

    with pytest.raises(ValueError, match="abdomen"):
        HeadStream(Three(), [])
