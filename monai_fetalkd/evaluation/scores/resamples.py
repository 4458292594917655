"""Resamples of whole groups (patients), drawn with replacement."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .predictions import Predictions

__all__ = ["Scorer", "group_codes", "group_resamples", "of_all_frames", "score_resamples", "sums_by_group"]

Key = TypeVar("Key", bound=Hashable)

#: Scores of resamples at once: from how often each resample draws each group, ``[R, G]``, arrays ``[R]`` by name.
Scorer = Callable[[NDArray[np.float64]], dict[Key, NDArray[np.float64]]]

# frames by resamples at a time: the intermediate arrays of a block stay in the cache of a core
_BLOCK = 2**16


def group_codes(groups: Sequence[str]) -> NDArray[np.int64]:
    """Number groups by their first appearance.

    The draws of a bootstrap then depend on the seed and the order of the frames, but not on what the groups are called:
    pseudonyms differ from one datalist to the next.

    Args:
        groups: the group (patient) of each frame.

    Returns:
        The number of the group of each frame, ``[N]``.

    Example:
        >>> group_codes(["q", "p", "q", "r"])
        array([0, 1, 0, 2])
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def group_resamples(groups: Sequence[str], repeats: int = 1000, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw as many groups as there are, with replacement, and give the frames of those drawn.

    Args:
        groups: the group (patient) of each frame.
        repeats: number of resamples.
        seed: the same seed gives the same resamples.

    Yields:
        Indices of frames, int64 of shape (frames of the groups drawn,).

    Raises:
        ValueError: if there is no group, or ``repeats`` is not positive.

    Example:
        >>> for frames in group_resamples(["p", "q", "p", "r"], repeats=2):
        ...     print(frames)
        [3 1 1]
        [0 2 0 2 0 2]
    """
    codes = group_codes(groups)
    members = [np.flatnonzero(codes == code) for code in range(codes.max(initial=-1) + 1)]
    for drawn in _draws(len(members), repeats, seed):
        yield np.concatenate([members[group] for group in drawn])


def score_resamples(
    scorer_of: Callable[[Predictions, NDArray[np.int64]], Scorer[Key]],
    predictions: Predictions,
    repeats: int,
    seed: int,
) -> dict[Key, NDArray[np.float64]]:
    """Scores of the frames as they are, then of the resamples that :func:`group_resamples` draws.

    Args:
        scorer_of: prepares the scores of a table with the number of the group of each frame.
        predictions: the table.
        repeats: number of resamples.
        seed: of the resamples.

    Returns:
        For each score an array ``[1 + repeats]``.
    """
    codes = group_codes(predictions.groups)
    groups = int(codes.max()) + 1
    scorer = scorer_of(predictions, codes)
    draws = (np.bincount(drawn, minlength=groups).astype(np.float64) for drawn in _draws(groups, repeats, seed))
    counts = chain([np.ones(groups)], draws)
    size = max(1, _BLOCK // len(codes))
    blocks = [scorer(np.stack(block)) for block in iter(lambda: list(islice(counts, size)), [])]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def of_all_frames(
    scorer_of: Callable[[Predictions, NDArray[np.int64]], Scorer[Key]], predictions: Predictions
) -> dict[Key, float]:
    """Scores of the frames as they are.

    Args:
        scorer_of: prepares the scores of a table with the number of the group of each frame.
        predictions: the table.

    Returns:
        The scores by name.
    """
    scorer = scorer_of(predictions, np.zeros(len(predictions), dtype=np.int64))
    return {name: float(values[0]) for name, values in scorer(np.ones((1, 1))).items()}


def sums_by_group(
    codes: NDArray[np.int64], cells: NDArray[np.int64], size: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """A histogram of frames for each group: that of a resample is the sum over the groups drawn.

    Args:
        codes: the number of the group of each frame, ``[N]``.
        cells: the cell of the histogram that each frame falls into, ``[N]``.
        size: number of cells.
        weights: what each frame counts, ``[N]``; 1 by default.

    Returns:
        The sums, ``[groups, size]``.

    Example:
        >>> sums_by_group(np.array([0, 1, 0]), np.array([1, 0, 1]), size=2)
        array([[0., 2.],
               [1., 0.]])
    """
    groups = int(codes.max()) + 1
    sums = np.bincount(codes * size + cells, weights, minlength=groups * size)
    return sums.reshape(groups, size).astype(np.float64)


def _draws(groups: int, repeats: int, seed: int) -> Iterator[NDArray[np.int64]]:
    if groups < 1 or repeats < 1:
        raise ValueError(f"A bootstrap takes a group and a repeat at least, got {groups} and {repeats}.")
    generator = np.random.default_rng(seed)
    for _ in range(repeats):
        yield generator.integers(groups, size=groups)
