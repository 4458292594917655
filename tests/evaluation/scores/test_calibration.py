from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from monai_fetalkd.evaluation.scores import (
    Predictions,
    calibration_scores,
    fit_temperature,
    reliability_bins,
    scores,
    with_temperature,
)


def table(labels, probabilities):
    rows = [{"image": f"{number}.png", "label": int(label)} for number, label in enumerate(labels)]
    return Predictions.from_rows([f"class {index}" for index in range(np.shape(probabilities)[1])], rows, probabilities)


def drawn(temperature, frames=20_000, seed=0):
    """Labels drawn from a softmax, and what a network says that is ``temperature`` times too sure."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(frames, 4))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return table(labels, softmax(logits * temperature, axis=1))


def negative_log_likelihood(predictions):
    return scores(predictions)["negative_log_likelihood"]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_that_the_labels_were_drawn_with_is_found(temperature):
    assert fit_temperature(drawn(temperature)) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("step", [None, 1, 3], ids=["any", "certain", "in thirds"])
@pytest.mark.parametrize("seed", range(3))
def test_no_temperature_makes_the_frames_it_is_fitted_on_less_likely(classes, step, seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.3), 40)
    if step:
        probabilities = generator.multinomial(step, probabilities) / step
    predictions = table(generator.integers(classes, size=40), probabilities)
    temperature = fit_temperature(predictions)
    assert 0.05 <= temperature <= 20
    assert negative_log_likelihood(with_temperature(predictions, temperature)) <= negative_log_likelihood(predictions)


def test_a_network_that_is_always_right_is_made_surer():
    predictions = table([0, 1, 2], np.full((3, 3), 0.2) + 0.4 * np.eye(3))
    assert fit_temperature(predictions) == pytest.approx(0.05, abs=0.01)


def test_a_temperature_divides_the_logits():
    logits = np.random.default_rng(0).normal(scale=3, size=(20, 5))
    predictions = table(np.zeros(20), softmax(logits, axis=1))
    softened = with_temperature(predictions, 2.5)
    np.testing.assert_allclose(np.log(softened.probabilities), log_softmax(logits / 2.5, axis=1), atol=1e-12)
    np.testing.assert_array_equal(softened.classes, predictions.classes)
    assert softened.files == predictions.files


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_a_probability_of_zero_stays_finite(temperature):
    softened = with_temperature(table([0, 1], [[1, 0], [1, 0]]), temperature).probabilities
    assert np.isfinite(softened).all()
    np.testing.assert_allclose(softened.sum(axis=1), 1)
    np.testing.assert_allclose(softened[:, 0], 1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_is_positive_and_finite(temperature):
    with pytest.raises(ValueError, match="A temperature is positive and finite, but got"):
        with_temperature(table([0], [[0.5, 0.5]]), temperature)


def test_calibration_scores_of_four_frames_by_hand():
    predictions = table([0, 1, 0, 0], [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert calibration_scores(predictions) == pytest.approx(
        {
            "negative_log_likelihood": -(math.log(0.9) + math.log(0.1) + math.log(0.6) + math.log(0.4)) / 4,
            # two frames at 0.9, one of them right; two at 0.6, one of them right
            "expected_calibration_error": (2 * 0.4 + 2 * 0.1) / 4,
            "brier_score": 2 * (0.1**2 + 0.9**2 + 0.4**2 + 0.6**2) / 4,
        },
        abs=1e-12,
    )


def test_a_network_as_right_as_it_is_sure_has_no_calibration_error():
    labels, probabilities = [0, 0, 0, 1], [[0.75, 0.25]] * 4
    assert calibration_scores(table(labels, probabilities))["expected_calibration_error"] == pytest.approx(0)


def test_bins_hold_their_lower_edge_and_the_last_one_its_upper_edge_too():
    predictions = table([0, 0, 0, 1], [[0.5, 0.5], [0.75, 0.25], [0.8, 0.2], [1, 0]])
    empty = {"frames": 0, "confidence": math.nan, "accuracy": math.nan}
    assert reliability_bins(predictions, bins=4) == [
        pytest.approx({"low": 0, "high": 0.25, **empty}, nan_ok=True),
        pytest.approx({"low": 0.25, "high": 0.5, **empty}, nan_ok=True),
        {"low": 0.5, "high": 0.75, "frames": 1, "confidence": 0.5, "accuracy": 1.0},
        pytest.approx({"low": 0.75, "high": 1, "frames": 3, "confidence": 0.85, "accuracy": 2 / 3}),
    ]


def test_fifteen_bins_give_the_expected_calibration_error():
    predictions = drawn(2.0, frames=300)
    bins = reliability_bins(predictions)
    assert len(bins) == 15
    assert sum(each["frames"] for each in bins) == 300
    error = sum(each["frames"] * abs(each["accuracy"] - each["confidence"]) for each in bins if each["frames"]) / 300
    assert error == pytest.approx(scores(predictions)["expected_calibration_error"], abs=1e-12)
