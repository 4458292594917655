"""How good the decisions and the probabilities of a network are.

Predictions are frames of one class out of several. Where a score is not defined, since a split lacks a class, it is NaN
here, never a warning; :func:`notes` says it in words. All scores equal those of scikit-learn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .predictions import Predictions
from .resamples import of_all_frames
from .scorer import headline_scorer, part_scorer, scorer

__all__ = ["class_scores", "confusion_counts", "notes", "part_scores", "scores"]

_NEARLY_ALL = 0.95  # of the answers: a network that gives one class so often has learned next to nothing


def scores(predictions: Predictions) -> dict[str, float]:
    """The headline scores of a network, always the same names in the same order.

    - ``accuracy``; ``balanced_accuracy``, the mean recall of the classes with a frame in the split.
    - ``macro_precision``, ``macro_recall``, ``macro_f1``: means over the classes that occur among labels or decisions,
      a precision or recall that is not defined counting as 0 (``zero_division=0`` of scikit-learn).
    - ``weighted_precision``, ``weighted_recall``, ``weighted_f1``: the same, classes weighed by their frames.
    - ``macro_auroc``, ``macro_average_precision``: one class against the rest, means over the classes that have frames
      and do not have all of them; NaN where the split is of one class.
    - ``top_2_accuracy``: how often the class is among the two most probable ones.
    - ``negative_log_likelihood``, ``expected_calibration_error``, ``brier_score``: see
      :func:`~monai_fetalkd.evaluation.scores.calibration.calibration_scores`.

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
    return of_all_frames(headline_scorer, predictions)


def part_scores(predictions: Predictions) -> dict[str, float]:
    """The headline scores of the frames of one source or machine: macro means count the classes that it has.

    A hospital that sends two planes is scored by these two. :func:`scores` would count each other plane that one of its
    frames is taken for with 0.

    Args:
        predictions: the frames to score.

    Returns:
        The scores by name, see :func:`scores`.

    Example:
        >>> rows = [{"image": f"{number}.png", "label": 0} for number in range(4)]
        >>> predictions = Predictions.from_rows(("brain", "other"), rows, [[0.9, 0.1]] * 3 + [[0.2, 0.8]])
        >>> round(scores(predictions)["macro_f1"], 3), round(part_scores(predictions)["macro_f1"], 3)
        (0.429, 0.857)
    """
    return of_all_frames(part_scorer, predictions)


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
    found: dict[str, dict[str, float]] = {part: {} for part in predictions.class_names}
    for (part, name), value in of_all_frames(scorer, predictions).items():
        if part is not None:
            found[part][name] = int(value) if name == "frames" else value
    return found


def confusion_counts(predictions: Predictions) -> NDArray[np.int64]:
    """How many frames of each class (rows) the network decides are of which class (columns), ``[C, C]``."""
    size = len(predictions.class_names)
    return np.bincount(predictions.labels * size + predictions.classes, minlength=size * size).reshape(size, size)


def notes(predictions: Predictions) -> list[str]:
    """What a reader of the scores must know: a network that has not learned, and classes without scores, in sentences.

    Args:
        predictions: the frames to score.

    Returns:
        Sentences; none where all scores are defined.

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
    favourite = decisions.argmax()
    if np.count_nonzero(cases) > 1 and decisions[favourite] >= max(_NEARLY_ALL * cases.sum(), 2 * cases[favourite]):
        sentences.append(
            f"{decisions[favourite]} of {cases.sum()} frames are taken for '{predictions.class_names[favourite]}', and "
            f"{cases[favourite]} are of it: the network does not tell the classes apart yet. Train it for longer."
        )
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
    missed = [
        f"'{name}'"
        for name, frames, decided in zip(predictions.class_names, cases, decisions, strict=True)
        if frames and not decided
    ]
    if missed:
        sentences.append(
            f"No frame is taken for {', '.join(missed)}: precision is not defined there, and the means count it with 0."
        )
    return sentences
