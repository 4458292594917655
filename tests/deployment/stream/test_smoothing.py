from __future__ import annotations

import numpy as np
import pytest

from monai_fetalkd.deployment.stream import Smoothing


def random_probabilities(frames, classes=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), frames)


@pytest.mark.parametrize("delay", [1, 3, 10])
def test_it_is_the_weighted_geometric_mean_of_the_frames_so_far(delay):
    frames = random_probabilities(12)
    smoothing = Smoothing(delay)
    found = np.array([smoothing.update(frame) for frame in frames])

    keep = 0.5 ** (1 / (delay + 0.5))
    for last in range(len(frames)):
        weights = (1 - keep) * keep ** np.arange(last, -1, -1.0)
        weights[0] = keep**last
        expected = np.prod(frames[: last + 1] ** weights[:, None], axis=0)
        np.testing.assert_allclose(found[last], expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize("certainty", [0.6, 0.9, 0.999])
@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("delay", [0, 1, 2, 3, 5, 10])
def test_the_answer_follows_a_change_as_many_frames_late_as_is_said(delay, classes, certainty):
    smoothing = Smoothing(delay)
    before = np.full(classes, (1 - certainty) / (classes - 1))
    after = before.copy()
    before[0], after[1] = certainty, certainty
    for _ in range(50):
        assert smoothing.update(before).argmax() == 0
    assert [int(smoothing.update(after).argmax()) for _ in range(delay + 5)] == [0] * delay + [1] * 5


def test_a_single_frame_does_not_change_the_answer():
    smoothing = Smoothing()
    frames = [[0.9, 0.1]] * 10 + [[0.05, 0.95]] + [[0.9, 0.1]] * 10
    assert {int(smoothing.update(np.array(frame)).argmax()) for frame in frames} == {0}


def test_equal_frames_come_out_neither_more_nor_less_sure():
    smoothing = Smoothing()
    for _ in range(100):
        np.testing.assert_allclose(smoothing.update(np.array([0.7, 0.2, 0.1])), [0.7, 0.2, 0.1], rtol=1e-12)


def test_a_frame_after_dropped_ones_weighs_as_much_as_they_would_have():
    first, second = random_probabilities(2)
    dropped, whole = Smoothing(4), Smoothing(4)
    for smoothing in (dropped, whole):
        smoothing.update(first)
    for _ in range(5):
        expected = whole.update(second)
    np.testing.assert_allclose(dropped.update(second, steps=5), expected, rtol=1e-12)


def test_a_probability_of_zero_does_not_rule_a_class_out_for_ever():
    smoothing = Smoothing(2)
    smoothing.update(np.array([1.0, 0.0]))
    for _ in range(3):
        last = smoothing.update(np.array([0.0, 1.0]))
    assert last.argmax() == 1
    assert np.isfinite(last).all()


def test_a_negative_delay_is_refused():
    with pytest.raises(ValueError, match="0 or more, not -1"):
        Smoothing(-1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("delay", [0, 3])
def test_what_is_not_finite_is_refused_and_spoils_nothing(value, delay):
    smoothing, untouched = Smoothing(delay), Smoothing(delay)
    first, second = np.array([0.9, 0.1]), np.array([0.2, 0.8])
    for one in (smoothing, untouched):
        one.update(first)
    with pytest.raises(ValueError, match="finite"):
        smoothing.update(np.array([value, 0.5]))
    np.testing.assert_array_equal(smoothing.update(second), untouched.update(second))
