from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.evaluation.timeline import Timeline

NAMES = ("left", "right")


def line(frame, plane, smoothed, time_ms=..., dropped=0):
    """What the stream prints of a frame."""
    return {
        "frame": frame,
        "time_ms": 40.0 * frame if time_ms is ... else time_ms,
        "plane": plane,
        "smoothed": dict(zip(NAMES, smoothed, strict=True)),
        "dropped": dropped,
    }


def drawn(tmp_path, answers):
    timeline = Timeline(NAMES)
    for one in answers:
        timeline.add(one)
    timeline.write(tmp_path / "timeline.png")
    return np.asarray(Image.open(tmp_path / "timeline.png").convert("RGB"))


LOOP = [line(number, "left" if number < 30 else "right", (0.9, 0.1)) for number in range(60)]


def test_a_timeline_shows_which_plane_was_answered_for_how_long(tmp_path):
    pytest.importorskip("matplotlib")
    picture = drawn(tmp_path, LOOP)
    lower = picture[3 * len(picture) // 4 :]  # below the curves
    colors = [0xE6, 0x9F, 0x00], [0x56, 0xB4, 0xE9]
    left, right = ((lower == color).all(axis=-1).sum(axis=1).max() for color in colors)
    assert left == pytest.approx(right, rel=0.1)
    assert left > 300


def test_a_timeline_marks_where_frames_were_dropped(tmp_path):
    pytest.importorskip("matplotlib")
    dropping = [line(number, "left", (0.9, 0.1), dropped=max(0, number - 40)) for number in range(60)]
    without, with_dropped = drawn(tmp_path, LOOP[:30] + dropping[30:31]), drawn(tmp_path, dropping)
    assert (with_dropped != without).any()
    ticks = [(picture.max(axis=-1) < 100)[int(0.82 * len(picture)) :].sum() for picture in (without, with_dropped)]
    assert ticks[1] > ticks[0]


def test_a_timeline_of_frames_without_times_counts_them(tmp_path):
    pytest.importorskip("matplotlib")
    picture = drawn(tmp_path, [line(number, None, (0.9, 0.1), time_ms=None) for number in range(9)])
    assert picture.shape == (504, 1200, 3)


def test_a_timeline_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        Timeline(NAMES)
