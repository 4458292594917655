"""Scores that each case has for itself, such as Dice or an error in mm: their means, and how sure these are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .resamples import group_resamples

__all__ = ["resampled_means"]


def resampled_means(
    values: ArrayLike, groups: Sequence[str], repeats: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Means over seeds and cases, as they are and in resamples of both.

    Each resample draws as many seeds as there are, and as many groups (patients or exams, with all their cases), both
    with replacement; the same draws for all that stands in the leading axes. So the difference of two rows is paired:
    take it resample by resample. What the networks of one seed share, such as the labelled cases, is resampled with the
    seed. With few seeds their part in the interval is rough.

    Args:
        values: scores, ``[..., seeds, cases]``; NaN where one is not defined, which is left out of the means.
        groups: the group of each case.
        repeats: number of resamples.
        seed: of the resamples.

    Returns:
        float64 ``[..., 1 + repeats]``: the mean of all, then that of each resample; for
        :func:`~monai_fetalkd.evaluation.scores.score_intervals`.

    Raises:
        ValueError: when the groups are not as many as the cases, or there is no seed.

    Example:
        >>> from monai_fetalkd.evaluation.scores import score_intervals
        >>> dice = [[0.90, 0.80, 0.70, 0.60], [0.92, 0.82, 0.72, 0.62]]  # two seeds, four cases
        >>> means = resampled_means(dice, ["a", "b", "c", "c"])
        >>> found = score_intervals({"dice": means})["dice"]
        >>> round(found.value, 2), found.low < 0.7, found.high > 0.8
        (0.76, True, True)
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim < 2 or scores.shape[-1] != len(groups) or scores.shape[-2] < 1:
        raise ValueError(
            f"scores are [..., seeds, cases] of one seed or more, with a group for each case, got {scores.shape} and "
            f"{len(groups)} groups"
        )
    count, generator = scores.shape[-2], np.random.default_rng([seed, 1])  # not the stream of the groups
    means = [np.nanmean(scores, axis=(-2, -1))]
    for drawn in group_resamples(groups, repeats, seed):
        seeds = generator.integers(count, size=count)
        means.append(np.nanmean(scores[..., seeds, :][..., drawn], axis=(-2, -1)))
    return np.stack(means, axis=-1)
