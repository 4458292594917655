"""How good the decisions and the probabilities of a network are, computed by scikit-learn.

Predictions are frames of one class out of several. Where a score is not defined, since a split lacks a class, it is NaN
here, never a warning; :func:`notes` says it in words.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from .calibration import calibration_scores
from .predictions import Predictions

__all__ = ["class_scores", "confusion_counts", "notes", "scores"]


class _ClassScores(NamedTuple):
    """Scores of each class against the others, arrays ``[C]``, NaN where not defined."""

    frames: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    auroc: NDArray[np.float64]
    average_precision: NDArray[np.float64]


def scores(predictions: Predictions) -> dict[str, float]:
    """The headline scores of a network, always the same names in the same order.

    - ``accuracy``; ``balanced_accuracy``, the mean recall of the classes with a frame in the split.
    - ``macro_precision``, ``macro_recall``, ``macro_f1``: means over the classes that occur among labels or decisions,
      a precision or recall that is not defined counting as 0 (scikit-learn's ``zero_division=0``).
    - ``weighted_precision``, ``weighted_recall``, ``weighted_f1``: the same, classes weighed by their frames.
    - ``macro_auroc``, ``macro_average_precision``: one class against the rest, means over the classes that have frames
      and do not have all of them; NaN where the split is of one class.
    - ``top_2_accuracy``: how often the class is among the two most probable ones.
    - ``negative_log_likelihood``, ``expected_calibration_error``, ``brier_score``: see
      :func:`~monai_fetalkd.evaluation.calibration.calibration_scores`.

    Args:
        predictions: the frames to score.

    Returns:
        The scores by name.

    Example:
        >>> rows = [{"image": f"{number}.png", "label": label} for number, label in enumerate([0, 0, 0, 1])]
        >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]
        >>> predictions = Predictions.from_rows(("brain", "other"), rows, probabilities)
        >>> {name: round(score, 3) for name, score in scores(predictions).items() if name.startswith("macro")}
        {'macro_precision': 0.75, 'macro_recall': 0.833, 'macro_f1': 0.733, 'macro_auroc': 1.0, ...}
    """
    by_class = _by_class(predictions)
    occurs = ~np.isnan(by_class.f1)
    precision, recall, f1 = (np.nan_to_num(each) for each in (by_class.precision, by_class.recall, by_class.f1))
    return {
        "accuracy": float(np.mean(predictions.classes == predictions.labels)),
        "balanced_accuracy": _mean(by_class.recall),
        "macro_precision": float(precision[occurs].mean()),
        "macro_recall": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "weighted_precision": float(np.average(precision, weights=by_class.frames)),
        "weighted_recall": float(np.average(recall, weights=by_class.frames)),
        "weighted_f1": float(np.average(f1, weights=by_class.frames)),
        "macro_auroc": _mean(by_class.auroc),
        "macro_average_precision": _mean(by_class.average_precision),
        "top_2_accuracy": _top_2_accuracy(predictions),
        **calibration_scores(predictions),
    }


def class_scores(predictions: Predictions) -> dict[str, dict[str, float]]:
    """The scores of each class against the others.

    Args:
        predictions: the frames to score.

    Returns:
        By class ``frames`` (of that class), ``precision``, ``recall``, ``f1``, ``auroc`` and ``average_precision``. Not
        defined, NaN, are recall, AUROC and average precision of a class without a frame, AUROC and average precision of
        one that has them all, precision of one that is never decided for, and F1 where both are missing.

    Example:
        >>> predictions = Predictions.from_rows(("brain", "other"), [{"image": "a.png", "label": 0}], [[0.9, 0.1]])
        >>> class_scores(predictions)["brain"]
        {'frames': 1, 'precision': 1.0, 'recall': 1.0, 'f1': 1.0, 'auroc': nan, 'average_precision': nan}
    """
    columns = {name: values.tolist() for name, values in _by_class(predictions)._asdict().items()}
    return {
        class_name: {name: values[index] for name, values in columns.items()}
        for index, class_name in enumerate(predictions.class_names)
    }


def confusion_counts(predictions: Predictions) -> NDArray[np.int64]:
    """How many frames of each class (rows) the network decides are of which class (columns), ``[C, C]``."""
    return confusion_matrix(predictions.labels, predictions.classes, labels=np.arange(len(predictions.class_names)))


def notes(predictions: Predictions) -> list[str]:
    """What a reader of the scores must know: the classes of which they are not defined, in sentences.

    Args:
        predictions: the frames to score.

    Returns:
        A sentence or two for each such class; none where all scores are defined.

    Example:
        >>> predictions = Predictions.from_rows(("brain", "other"), [{"image": "a.png", "label": 0}], [[0.9, 0.1]])
        >>> for note in notes(predictions):
        ...     print(note)
        All frames are of class 'brain': AUROC and average precision are not defined for any class.
        No frame is of class 'other': its recall, AUROC and average precision are not defined, and no mean counts them.
    """
    cases = np.bincount(predictions.labels, minlength=len(predictions.class_names))
    decisions = np.bincount(predictions.classes, minlength=len(predictions.class_names))
    sentences = []
    for name, frames, decided in zip(predictions.class_names, cases.tolist(), decisions.tolist(), strict=True):
        if frames == len(predictions):
            sentences.append(
                f"All frames are of class '{name}': AUROC and average precision are not defined for any class."
            )
        elif not frames and not decided:
            sentences.append(
                f"No frame is of class '{name}': its recall, AUROC and average precision are not defined, and no mean "
                "counts them."
            )
        elif not frames:
            sentences.append(
                f"No frame is of class '{name}': its recall, AUROC and average precision are not defined. "
                f"{decided} {'frame is' if decided == 1 else 'frames are'} taken for it, so that the macro precision, "
                "recall and F1 count it with 0; the other means leave it out."
            )
        if frames and not decided:
            sentences.append(
                f"No frame is taken for class '{name}': its precision is not defined, and the means count it with 0."
            )
    return sentences


# scores() and class_scores() of the same resample follow each other, and need the same figures
@functools.lru_cache(maxsize=1)
def _by_class(predictions: Predictions) -> _ClassScores:
    precision, recall, f1, frames = precision_recall_fscore_support(
        predictions.labels,
        predictions.classes,
        labels=np.arange(len(predictions.class_names)),
        average=None,
        zero_division=np.nan,
    )
    areas = _areas(predictions.labels, predictions.probabilities)
    return _ClassScores(frames.astype(np.int64), precision, recall, f1, *areas)


def _areas(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC and average precision of each class against the others, ``[2, C]``."""
    classes = probabilities.shape[1]
    areas = np.full((2, classes), np.nan)
    cases = labels[:, np.newaxis] == np.arange(classes)
    defined = cases.any(axis=0) & ~cases.all(axis=0)
    if defined.any():
        for row, score in zip(areas, (roc_auc_score, average_precision_score), strict=True):
            row[defined] = score(cases[:, defined], probabilities[:, defined], average=None)
    return areas


def _top_2_accuracy(predictions: Predictions) -> float:
    classes = np.arange(len(predictions.class_names))
    if len(classes) == 2:
        return 1.0
    return float(top_k_accuracy_score(predictions.labels, predictions.probabilities, k=2, labels=classes))


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
