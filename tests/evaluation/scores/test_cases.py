"""Intervals of scores that each case has for itself."""

import numpy as np
import pytest

from monai_fetalkd.evaluation.scores import resampled_means, score_intervals


def interval(means):
    found = score_intervals({"score": means})["score"]
    return found.value, found.low, found.high


@pytest.mark.parametrize("seeds", [1, 3])
def test_interval_is_that_of_the_standard_error(seeds):
    cases = np.random.default_rng(1).normal(5.0, 2.0, 400)
    means = resampled_means(np.tile(cases, (seeds, 1)), [str(number) for number in range(400)])
    value, low, high = interval(means)
    assert means.shape == (2001,)
    assert value == pytest.approx(cases.mean())
    assert high - low == pytest.approx(2 * 1.96 * cases.std() / 20, rel=0.1)


def test_cases_of_a_group_stay_together():
    cases = np.repeat(np.random.default_rng(0).normal(size=50), 8)[None]
    alone, together = (
        interval(resampled_means(cases, groups))
        for groups in ([str(number) for number in range(400)], [str(number // 8) for number in range(400)])
    )
    assert together[2] - together[1] == pytest.approx(np.sqrt(8) * (alone[2] - alone[1]), rel=0.15)


def test_seeds_widen_the_interval():
    cases = np.random.default_rng(0).normal(0, 0.1, (3, 60)) + np.array([[-1.0], [0.0], [1.0]])
    _, low, high = interval(resampled_means(cases, [str(number) for number in range(60)]))
    assert low < -0.5
    assert high > 0.5


def test_arms_are_resampled_alike():
    cases = np.random.default_rng(0).normal(size=(2, 30))
    first, second = resampled_means(np.stack([cases, cases + 0.25]), ["a", "b", "c"] * 10)
    np.testing.assert_allclose(second - first, 0.25)


def test_what_is_not_defined_is_left_out():
    cases = [[1.0, np.nan, 3.0]]
    assert resampled_means(cases, ["a", "b", "c"], repeats=1)[0] == 2.0


@pytest.mark.parametrize("shape", [(3,), (2, 4), (0, 3)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="3 groups"):
        resampled_means(np.zeros(shape), ["a", "b", "c"])
