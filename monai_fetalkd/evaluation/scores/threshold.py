"""When to be undecided: the top probability below which a network withholds its answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .predictions import Predictions
from .resamples import Scorer, sums_by_group

__all__ = ["answer_threshold", "answered", "answered_scorer"]


def answer_threshold(predictions: Predictions, target: float = 0.95) -> float | None:
    r"""The smallest top probability from which on a network is right often enough.

    With :math:`p_i` the top probability of frame :math:`i` and :math:`r_i` whether its class is right, it is

    .. math::
        t = \min \Big\{ p_j : \frac{\sum_i r_i [p_i \ge p_j]}{\sum_i [p_i \ge p_j]} \ge \text{target} \Big\}

    so as many frames as possible are answered, and of the answers at least ``target`` are right. A network that is
    right often enough on all frames gets the smallest top probability it has shown: it is undecided only where it is
    less sure than on any of them.

    Choose it on validation frames, with probabilities after temperature scaling, and judge it on others.

    Args:
        predictions: the frames to choose it on.
        target: share of right answers, above 0 and at most 1.

    Returns:
        The threshold; None where no answers, not even the surest, are right often enough.

    Raises:
        ValueError: when the target is no such share.

    Example:
        >>> rows = [{"image": f"{number}.png", "label": 0} for number in range(4)]
        >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]  # the third is wrong
        >>> answer_threshold(Predictions.from_rows(("brain", "other"), rows, probabilities))
        0.8
    """
    if not 0 < target <= 1:
        raise ValueError(f"The share of right answers is above 0 and at most 1, not {target}.")
    top = predictions.probabilities.max(axis=1)
    right = predictions.classes == predictions.labels
    order = np.argsort(-top)
    shares = np.cumsum(right[order]) / np.arange(1, len(top) + 1)
    last_of_equals = np.append(np.diff(top[order]) != 0, True)  # frames of one probability are answered together
    enough = np.flatnonzero(last_of_equals & (shares >= target))
    return float(top[order[enough[-1]]]) if len(enough) else None


def answered(predictions: Predictions, threshold: float | None) -> dict[str, float | None]:
    """What a threshold does: how many frames are answered, and how many of the answers are right.

    Args:
        predictions: the frames to judge it on.
        threshold: frames whose top probability is below are not answered; None answers all.

    Returns:
        ``coverage`` (share of the frames that are answered) and ``accuracy`` (share of these that are right; None
        where nothing is answered).

    Example:
        >>> rows = [{"image": "a.png", "label": 0}, {"image": "b.png", "label": 0}]
        >>> predictions = Predictions.from_rows(("brain", "other"), rows, [[0.9, 0.1], [0.4, 0.6]])
        >>> answered(predictions, threshold=0.8)
        {'coverage': 0.5, 'accuracy': 1.0}
    """
    sure = predictions.probabilities.max(axis=1) >= (threshold or 0)
    right = (predictions.classes == predictions.labels)[sure]
    return {"coverage": float(sure.mean()), "accuracy": float(right.mean()) if len(right) else None}


def answered_scorer(predictions: Predictions, codes: NDArray[np.int64], threshold: float) -> Scorer[str]:
    """What :func:`answered` gives, for many resamples at once.

    Args:
        predictions: the frames to judge it on.
        codes: the number of the group of each frame, ``[N]``.
        threshold: frames whose top probability is below are not answered.

    Returns:
        What takes how often each resample draws each group, ``[R, G]``, and gives ``coverage`` and ``accuracy``.
    """
    answer = predictions.probabilities.max(axis=1) >= threshold
    right = answer & (predictions.classes == predictions.labels)
    cells = sums_by_group(codes, answer.astype(np.int64) + right, 3)  # not answered, answered wrong, answered right

    def score(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        withheld, wrong, hits = (counts @ cells).T
        with np.errstate(invalid="ignore"):
            return {"coverage": (wrong + hits) / (withheld + wrong + hits), "accuracy": hits / (wrong + hits)}

    return score
