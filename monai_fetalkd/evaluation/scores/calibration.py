"""Calibration: are the probabilities of a network as large as it is right, and one temperature that mends them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from .predictions import Predictions
from .resamples import Scorer, of_all_frames, sums_by_group

__all__ = ["calibration_scorer", "calibration_scores", "fit_temperature", "reliability_bins", "with_temperature"]

_BINS = 15
_TEMPERATURES = (0.05, 20.0)


def calibration_scores(predictions: Predictions) -> dict[str, float]:
    r"""Scores of the probabilities rather than of the decisions; less is better.

    - ``negative_log_likelihood``: mean of :math:`-\log p_{y}` in nats; a probability of 0 counts as 2.2e-16, as in
      scikit-learn's ``log_loss``.
    - ``expected_calibration_error``: :math:`\sum_b \frac{n_b}{N} |\mathrm{acc}_b - \mathrm{conf}_b|` over the bins of
      :func:`reliability_bins` [1].
    - ``brier_score``: mean of :math:`\sum_c (p_c - [c = y])^2`, from 0 to 2 for any number of classes, that of
      scikit-learn's ``brier_score_loss`` with ``scale_by_half=False``.

    Args:
        predictions: the frames to score.

    Returns:
        The three scores by name, in this order.

    References:
        [1] Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599. There as in many code
        bases a bin holds its upper edge; here it holds its lower one, as numpy's histograms do.

    Example:
        >>> rows = [{"image": "a.png", "label": 0}, {"image": "b.png", "label": 1}]
        >>> calibration_scores(Predictions.from_rows(("brain", "other"), rows, [[0.75, 0.25], [0.75, 0.25]]))
        {'negative_log_likelihood': 0.836..., 'expected_calibration_error': 0.25, 'brier_score': 0.625}
    """
    return of_all_frames(calibration_scorer, predictions)


def calibration_scorer(predictions: Predictions, codes: NDArray[np.int64]) -> Scorer[str]:
    """The scores of :func:`calibration_scores` for many resamples at once.

    Args:
        predictions: the frames to score.
        codes: the number of the group of each frame, ``[N]``.

    Returns:
        What takes how often each resample draws each group, ``[R, G]``, and gives the scores, arrays ``[R]``.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    truth = np.eye(probabilities.shape[1])[labels]
    columns = (
        np.ones(len(labels)),
        _log_losses(labels, probabilities),
        np.square(probabilities - truth).sum(axis=1),
    )
    one_cell = np.zeros(len(labels), dtype=np.int64)
    linear = np.concatenate([sums_by_group(codes, one_cell, 1, column) for column in columns], axis=1)
    excess = (predictions.classes == labels) - probabilities.max(axis=1)
    bins = sums_by_group(codes, _bin_of(predictions, _BINS), _BINS, excess)

    def score(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        frames, log_losses, squares = (counts @ linear).T
        return {
            "negative_log_likelihood": log_losses / frames,
            "expected_calibration_error": np.abs(counts @ bins).sum(axis=1) / frames,
            "brier_score": squares / frames,
        }

    return score


def reliability_bins(predictions: Predictions, bins: int = _BINS) -> list[dict[str, float]]:
    """How often the network is right where it is so sure: the points of a reliability diagram.

    Args:
        predictions: the frames to score.
        bins: number of bins of equal width, from 0 to 1. A bin holds its lower edge; the last one holds 1 too.

    Returns:
        For each bin, empty ones included: ``low`` and ``high`` (its edges), ``frames`` (how many have their top
        probability in it), ``confidence`` (mean top probability) and ``accuracy``; NaN where there is no frame.

    Example:
        >>> rows = [{"image": "a.png", "label": 0}, {"image": "b.png", "label": 1}]
        >>> predictions = Predictions.from_rows(("brain", "other"), rows, [[0.75, 0.25], [0.75, 0.25]])
        >>> reliability_bins(predictions, bins=2)[1]
        {'low': 0.5, 'high': 1.0, 'frames': 2, 'confidence': 0.75, 'accuracy': 0.5}
    """
    edges = np.linspace(0, 1, bins + 1).tolist()
    inside = _bin_of(predictions, bins)
    top, right = predictions.probabilities.max(axis=1), predictions.classes == predictions.labels
    frames, confidence, hits = (np.bincount(inside, weights, minlength=bins) for weights in (None, top, right))
    return [
        {
            "low": low,
            "high": high,
            "frames": int(count),
            "confidence": float(sure / count) if count else math.nan,
            "accuracy": float(hit / count) if count else math.nan,
        }
        for low, high, count, sure, hit in zip(edges[:-1], edges[1:], frames, confidence, hits, strict=True)
    ]


def fit_temperature(predictions: Predictions) -> float:
    """The temperature that gives these frames their least negative log-likelihood, between 0.05 and 20.

    Fit it on the validation split, and judge it on another one. It changes no decision, and it never makes the frames
    that it is fitted on less likely: where no temperature helps it is 1.

    Args:
        predictions: the frames to fit it on.

    Returns:
        The temperature for :func:`with_temperature`; above 1 where the network is too sure.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599.

    Example:
        >>> rows = [{"image": f"{number}.png", "label": int(number == 0)} for number in range(4)]
        >>> predictions = Predictions.from_rows(("brain", "other"), rows, [[0.9, 0.1]] * 4)  # but right in 3 of 4
        >>> temperature = fit_temperature(predictions)
        >>> round(temperature, 3), with_temperature(predictions, temperature).probabilities[0].round(3).tolist()
        (2.0, [0.75, 0.25])
    """

    def loss(log_temperature: float) -> float:
        softened = _softened(predictions.probabilities, math.exp(log_temperature))
        return float(_log_losses(predictions.labels, softened).mean())

    low, high = map(math.log, _TEMPERATURES)
    best = float(minimize_scalar(loss, bounds=(low, high), method="bounded").x)
    return math.exp(best) if loss(best) < loss(0) else 1.0


def with_temperature(predictions: Predictions, temperature: float) -> Predictions:
    r"""The same frames with :math:`\mathrm{softmax}(\log p / T)` for probabilities.

    The softmax does not see what is added to all logits, so that :math:`\log p` serves as well as the logits. A
    probability of 0 counts as the smallest normal float, 2.2e-308.

    Args:
        predictions: the frames.
        temperature: :math:`T > 0`; above 1 it makes the network less sure.

    Returns:
        The table with other probabilities.

    Raises:
        ValueError: when the temperature is not positive and finite.

    Example:
        >>> predictions = Predictions.from_rows(("brain", "other"), [{"image": "a.png", "label": 0}], [[0.9, 0.1]])
        >>> with_temperature(predictions, 2.0).probabilities.round(3)
        array([[0.75, 0.25]])
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"A temperature is positive and finite, but got {temperature}.")
    return dataclasses.replace(predictions, probabilities=_softened(predictions.probabilities, temperature))


def _softened(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return softmax(logits / temperature, axis=1)


def _log_losses(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each frame, clipped as scikit-learn's ``log_loss`` does."""
    tiny = np.finfo(np.float64).eps
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], tiny, 1 - tiny))


def _bin_of(predictions: Predictions, bins: int) -> NDArray[np.int64]:
    """The bin of each frame by its top probability, with the very edges that numpy's histograms have."""
    edges = np.linspace(0, 1, bins + 1)
    return np.minimum(np.searchsorted(edges, predictions.probabilities.max(axis=1), side="right") - 1, bins - 1)
