"""All scores of a network for many resamples at once, without a table of frames for each of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .calibration import calibration_scorer
from .predictions import Predictions
from .resamples import Scorer, sums_by_group

__all__ = ["headline_scorer", "part_scorer", "scorer"]

Floats = NDArray[np.float64]


def scorer(
    predictions: Predictions, codes: NDArray[np.int64], present_only: bool = False
) -> Scorer[tuple[str | None, str]]:
    """The headline scores under ``(None, name)`` and those of each class under ``(class, name)``.

    Decisions are counted in a confusion matrix for each group, and that of a resample is the sum over the groups drawn.
    Areas under curves need the frames in the order of their probabilities, sorted once for each class.

    Args:
        predictions: the frames to score.
        codes: the number of the group of each frame, ``[N]``.
        present_only: whether macro means count the classes alone that have frames in this table.

    Returns:
        What takes how often each resample draws each group, ``[R, G]``, and gives the scores, arrays ``[R]``.
    """
    names, labels, decided = predictions.class_names, predictions.labels, predictions.classes
    size = len(names)
    confusions = sums_by_group(codes, labels * size + decided, size * size)
    hits = sums_by_group(codes, _in_top_2(predictions).astype(np.int64), 2)
    counted = np.bincount(labels, minlength=size) > 0 if present_only else np.ones(size, dtype=bool)
    calibration = calibration_scorer(predictions, codes)
    curves = [_Curve(labels == index, predictions.probabilities[:, index]) for index in range(size)]

    def score(counts: Floats) -> dict[tuple[str | None, str], Floats]:
        confusion = (counts @ confusions).reshape(-1, size, size)
        right, cases, taken = confusion.diagonal(axis1=1, axis2=2), confusion.sum(axis=2), confusion.sum(axis=1)
        frames = cases.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision, recall, f1 = right / taken, right / cases, 2 * right / (cases + taken)
        weights = np.ascontiguousarray(counts[:, codes].T)
        auroc, average_precision = np.stack([curve.areas(weights) for curve in curves], axis=-1)
        occurs = counted & (cases + taken > 0)
        filled = {"precision": np.nan_to_num(precision), "recall": np.nan_to_num(recall), "f1": np.nan_to_num(f1)}
        headline = {
            "accuracy": right.sum(axis=1) / frames,
            "balanced_accuracy": _mean(recall),
            **{f"macro_{name}": _mean(np.where(occurs, values, np.nan)) for name, values in filled.items()},
            **{f"weighted_{name}": (values * cases).sum(axis=1) / frames for name, values in filled.items()},
            "macro_auroc": _mean(auroc),
            "macro_average_precision": _mean(average_precision),
            "top_2_accuracy": (counts @ hits)[:, 1] / frames,
            **calibration(counts),
        }
        by_class = {
            "frames": cases,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "auroc": auroc,
            "average_precision": average_precision,
        }
        return {
            **{(None, name): values for name, values in headline.items()},
            **{(part, name): values[:, i] for i, part in enumerate(names) for name, values in by_class.items()},
        }

    return score


def headline_scorer(predictions: Predictions, codes: NDArray[np.int64], present_only: bool = False) -> Scorer[str]:
    """The headline scores of :func:`scorer` by their names."""
    every = scorer(predictions, codes, present_only)
    return lambda counts: {name: values for (part, name), values in every(counts).items() if part is None}


def part_scorer(predictions: Predictions, codes: NDArray[np.int64]) -> Scorer[str]:
    """The headline scores of the frames of one source or machine, whose macro means count the classes that it has."""
    return headline_scorer(predictions, codes, present_only=True)


class _Curve:
    """The thresholds of one class against the others, from the most probable frame to the least.

    Args:
        cases: which frames are of the class, ``[N]``.
        probabilities: of the class, ``[N]``.
    """

    def __init__(self, cases: NDArray[np.bool_], probabilities: Floats) -> None:
        self.order = np.argsort(-probabilities, kind="stable")
        self.cases = cases[self.order, None]
        self.ends = np.flatnonzero(np.diff(probabilities[self.order], append=-1))  # of frames of equal probability

    def areas(self, weights: Floats) -> Floats:
        """AUROC and average precision, ``[2, R]``, of frames that count as often as the weights ``[N, R]`` say."""
        weights = weights[self.order]
        taken = weights.cumsum(axis=0)[self.ends]
        right = (weights * self.cases).cumsum(axis=0)[self.ends]
        wrong = taken - right
        before = np.zeros((1, right.shape[1]))
        gained = np.diff(right, axis=0, prepend=before)
        trapezia = np.diff(wrong, axis=0, prepend=before) * (right - gained / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            auroc = trapezia.sum(axis=0) / (right[-1] * wrong[-1])
            average_precision = (gained * np.nan_to_num(right / taken)).sum(axis=0) / right[-1]
        return np.stack([auroc, np.where(wrong[-1] > 0, average_precision, np.nan)])


def _in_top_2(predictions: Predictions) -> NDArray[np.bool_]:
    """Whether the class is among the two most probable ones, the later of equals first as scikit-learn has it."""
    if len(predictions.class_names) == 2:
        return np.ones(len(predictions), dtype=bool)
    top = np.argsort(predictions.probabilities, axis=1, kind="stable")[:, -2:]
    return (top == predictions.labels[:, None]).any(axis=1)


def _mean(values: Floats) -> Floats:
    """The mean over classes ``[R, C]`` of what is defined."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)
