from __future__ import annotations

import numpy as np
import pytest

from monai_fetalkd.deployment.export import balanced_rows, compare_logits


def test_calibration_frames_are_balanced_drawn_anew_by_seed_and_never_twice():
    rows = [{"image": f"{number}.png", "label": int(number >= 90)} for number in range(100)]
    drawn = balanced_rows(rows, ["brain", "femur"], per_class=20, seed=1)
    labels = [row["label"] for row in drawn]
    assert (labels.count(0), labels.count(1)) == (20, 10)
    assert len({row["image"] for row in drawn}) == 30
    assert balanced_rows(rows, ["brain", "femur"], per_class=20, seed=1) == drawn
    assert balanced_rows(rows, ["brain", "femur"], per_class=20, seed=2) != drawn


def test_a_class_without_calibration_frames_is_named():
    with pytest.raises(ValueError, match="'femur'"):
        balanced_rows([{"image": "a.png", "label": 0}], ["brain", "femur"])
    with pytest.raises(ValueError, match="at least one frame of each class"):
        balanced_rows([{"image": "a.png", "label": 0}], ["brain"], per_class=0)


def test_a_class_without_frames_has_no_figures():
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    figures = compare_logits(logits, logits, [0, 2], ["brain", "femur", "other"])
    assert figures["by_class"].keys() == {"brain", "other"}
    assert (figures["agreement"], figures["accuracy"], figures["relative_rms"]) == (1.0, 0.5, 0.0)
