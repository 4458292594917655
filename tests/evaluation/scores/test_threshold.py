from __future__ import annotations

import numpy as np
import pytest

from monai_fetalkd.evaluation.scores import Predictions, answer_threshold, answered
from monai_fetalkd.evaluation.scores.resamples import group_resamples, score_resamples
from monai_fetalkd.evaluation.scores.threshold import answered_scorer


def predictions(top, right):
    """Frames whose top probability is for class 0, which is the label where it is right."""
    rows = [{"image": f"{number}.png", "label": 0 if hit else 1} for number, hit in enumerate(right)]
    return Predictions.from_rows(("brain", "other"), rows, np.stack([top, 1 - np.asarray(top)], axis=1))


def smallest_by_trying(frames, target):
    top = frames.probabilities.max(axis=1)
    right = frames.classes == frames.labels
    enough = [value for value in top if right[top >= value].mean() >= target]
    return min(enough, default=None)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_smallest_probability_from_which_on_enough_is_right(seed, target):
    generator = np.random.default_rng(seed)
    top = generator.choice(np.linspace(0.55, 0.99, 12), size=40)  # with equal ones among them
    frames = predictions(top, generator.random(40) < top)
    assert answer_threshold(frames, target) == smallest_by_trying(frames, target)


def test_frames_of_equal_probability_are_answered_together():
    assert answer_threshold(predictions([0.9, 0.8, 0.8], [True, True, False]), target=1.0) == 0.9


def test_a_network_that_is_always_right_keeps_silent_only_where_it_is_less_sure_than_ever():
    frames = predictions([0.9, 0.6, 0.7], [True, True, True])
    assert answer_threshold(frames) == 0.6
    assert answered(frames, 0.6) == {"coverage": 1.0, "accuracy": 1.0}


def test_without_a_good_answer_there_is_no_threshold():
    frames = predictions([0.9, 0.6], [False, True])
    assert answer_threshold(frames) is None
    assert answered(frames, None) == {"coverage": 1.0, "accuracy": 0.5}


def test_nothing_answered_has_no_accuracy():
    assert answered(predictions([0.9], [True]), 0.95) == {"coverage": 0.0, "accuracy": None}


@pytest.mark.parametrize("target", [0, -0.1, 1.01, float("nan")])
def test_a_target_is_a_share(target):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        answer_threshold(predictions([0.9], [True]), target)


def test_coverage_and_accuracy_of_resamples_are_those_of_each_by_itself():
    generator = np.random.default_rng(0)
    frames = predictions(generator.uniform(0.5, 1, 30), generator.random(30) < 0.7)
    found = score_resamples(lambda table, codes: answered_scorer(table, codes, 0.8), frames, repeats=5, seed=0)
    assert answered(frames, 0.8) == {name: values[0] for name, values in found.items()}
    for number, drawn in enumerate(group_resamples(frames.groups, 5), start=1):
        expected = answered(frames.take(drawn), 0.8)
        assert expected == pytest.approx({name: values[number] for name, values in found.items()})
