"""Which frames to label next: how uncertain networks are of them, and how unlike the labelled ones they are.

The functions take probabilities and features as arrays, wherever these come from, and need numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["STRATEGIES", "Pool", "disagreement", "entropy", "farthest_first", "margin", "rank"]

STRATEGIES = {
    "entropy": "the frame whose probabilities are spread most evenly over the classes",
    "margin": "the frame whose two most probable classes are closest to each other",
    "disagreement": "the frame of which teacher and student disagree most",
    "diversity": "the frame that is least like any labelled one",
    "random": "any frame",
    "first": "the frame whose name comes first",
}
"""Each strategy, and in words which frame it asks for."""


@dataclass(frozen=True)
class Pool:
    """The unlabelled frames, in the order of their names, and what the networks make of them.

    A strategy needs only what it looks at; the rest may stay None.

    Args:
        size: number of unlabelled frames N.
        probabilities: of the student, ``[N, C]``.
        teacher: probabilities of the teacher for the same frames, ``[N, C]``.
        features: of a hidden layer of the student, ``[N, D]``.
        labelled: the same features of the frames that have a label already, ``[M, D]``.
    """

    size: int
    probabilities: ArrayLike | None = None
    teacher: ArrayLike | None = None
    features: ArrayLike | None = None
    labelled: ArrayLike | None = None


def rank(strategy: str, pool: Pool, count: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The frames to label next, the most useful one first.

    Args:
        strategy: one of :data:`STRATEGIES`.
        pool: the frames to choose from.
        count: how many to choose; all of a smaller pool.
        seed: of the strategy ``"random"``.

    Returns:
        Their positions in the pool, and the score by which each was chosen: from 0 to 1 for ``"entropy"``,
        ``"margin"`` and ``"disagreement"``, a distance for ``"diversity"``, 0 for the others. Of equal frames, the
        first in the pool comes first.

    Raises:
        ValueError: when there is no such strategy, or the pool lacks what it needs.

    Example:
        >>> positions, scores = rank("margin", Pool(3, [[0.9, 0.1], [0.5, 0.5], [0.7, 0.3]]), count=2)
        >>> positions.tolist(), scores.round(3).tolist()
        ([1, 2], [1.0, 0.6])
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"There is no strategy '{strategy}': choose one of {', '.join(STRATEGIES)}.")
    count = min(count, pool.size)
    if strategy == "first":
        return np.arange(count), np.zeros(count)
    if strategy == "random":
        return np.random.default_rng(seed).permutation(pool.size)[:count], np.zeros(count)
    if strategy == "diversity":
        return farthest_first(_given(pool, "features", strategy), pool.labelled, count)
    probabilities = _given(pool, "probabilities", strategy)
    if strategy == "disagreement":
        scores = disagreement(probabilities, _given(pool, "teacher", strategy))
    else:
        scores = entropy(probabilities) if strategy == "entropy" else margin(probabilities)
    order = np.argsort(-scores, kind="stable")[:count]
    return order, scores[order]


def entropy(probabilities: ArrayLike) -> NDArray[np.float64]:
    r"""The entropy of each row as a share of the largest possible, :math:`-\sum_c p_c \log p_c / \log C`.

    Args:
        probabilities: ``[N, C]``, C at least 2.

    Returns:
        ``[N]``, from 0 (certain) to 1 (all classes equally probable).

    Raises:
        ValueError: when the rows are no probabilities.

    Example:
        >>> entropy([[1.0, 0.0], [0.5, 0.5]]).tolist()
        [0.0, 1.0]
    """
    rows = _probabilities(probabilities)
    return _entropy(rows) / np.log(rows.shape[1])


def margin(probabilities: ArrayLike) -> NDArray[np.float64]:
    """One less the lead of the most probable class over the second (Scheffer et al. 2001).

    Args:
        probabilities: ``[N, C]``, C at least 2.

    Returns:
        ``[N]``, from 0 (certain) to 1 (two classes tie).

    Raises:
        ValueError: when the rows are no probabilities.

    Example:
        >>> margin([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]]).tolist()
        [0.75, 1.0]
    """
    top = np.sort(_probabilities(probabilities), axis=1)
    return 1 - (top[:, -1] - top[:, -2])


def disagreement(student: ArrayLike, teacher: ArrayLike) -> NDArray[np.float64]:
    r"""How differently two networks see a frame: the Jensen-Shannon divergence of their probabilities over log 2.

    With the mean m of both rows, :math:`(H(m) - (H(p) + H(q)) / 2) / \log 2`: query by a committee of two (McCallum and
    Nigam 1998). It is large where both are sure of different classes, and 0 where both are equally unsure: what it
    finds is what the student has not learnt from the teacher.

    Args:
        student: ``[N, C]``.
        teacher: ``[N, C]``.

    Returns:
        ``[N]``, from 0 (the same) to 1 (no class in common).

    Raises:
        ValueError: when the rows are no probabilities, or the shapes differ.

    Example:
        >>> disagreement([[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]).tolist()
        [1.0, 0.0]
    """
    p, q = _probabilities(student), _probabilities(teacher)
    if p.shape != q.shape:
        raise ValueError(f"Student and teacher must have the same frames and classes, not {p.shape} and {q.shape}.")
    return np.clip(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2, 0, None) / np.log(2)


def farthest_first(
    features: ArrayLike, labelled: ArrayLike | None, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose frames one by one, each the farthest from all labelled and chosen ones.

    That is the greedy k-centre (Gonzalez 1985), as Sener and Savarese (2018) use it on features of a network.

    Args:
        features: of the frames to choose from, ``[N, D]``.
        labelled: of the frames that are labelled, ``[M, D]``; without any, the first chosen is the farthest from the
            mean of the pool.
        count: how many to choose.

    Returns:
        Positions in the order they were chosen, and the distance of each to its nearest labelled or chosen one.

    Raises:
        ValueError: when the shapes do not fit.

    Example:
        >>> farthest_first([[0.0], [3.0], [4.0]], labelled=[[0.0]], count=2)[0].tolist()
        [2, 1]
    """
    points = np.asarray(features, dtype=np.float64)
    known = np.zeros((0, points.shape[-1])) if labelled is None else np.asarray(labelled, dtype=np.float64)
    if points.ndim != 2 or known.ndim != 2 or points.shape[1] != known.shape[1]:
        raise ValueError(
            f"Features of frames and of labelled ones must be rows of one length, not {points.shape} and {known.shape}."
        )
    centres = known if len(known) else points.mean(axis=0, keepdims=True)
    nearest = np.full(len(points), np.inf)
    for centre in centres:
        nearest = np.minimum(nearest, np.linalg.norm(points - centre, axis=1))
    chosen: list[int] = []
    distances: list[float] = []
    left = np.ones(len(points), dtype=bool)
    for _ in range(min(count, len(points))):
        position = int(np.where(left, nearest, -1).argmax())
        chosen.append(position)
        distances.append(float(nearest[position]))
        left[position] = False
        nearest = np.minimum(nearest, np.linalg.norm(points - points[position], axis=1))
    return np.array(chosen, dtype=np.int64), np.array(distances)


def _given(pool: Pool, name: str, strategy: str) -> ArrayLike:
    value: ArrayLike | None = getattr(pool, name)
    if value is None:
        raise ValueError(f"The strategy '{strategy}' needs the {name} of the pool.")
    if len(np.asarray(value)) != pool.size:
        raise ValueError(f"The {name} are of {len(np.asarray(value))} frames, but the pool has {pool.size}.")
    return value


def _probabilities(values: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise ValueError(
            f"Probabilities must be of shape (frames, classes) with two classes at least, not {rows.shape}."
        )
    if not np.all((rows >= 0) & (rows <= 1)) or not np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        raise ValueError("Probabilities must be from 0 to 1 and sum to 1 in each row: apply softmax to logits first.")
    return rows


def _entropy(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.0 - np.sum(rows * np.log(np.where(rows > 0, rows, 1)), axis=1)  # not -0.0
