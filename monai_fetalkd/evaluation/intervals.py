"""How sure a score is: a bootstrap that resamples patients, not frames, and two networks on the same frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import binomtest

from monai_fetalkd.evaluation.predictions import Predictions
from monai_fetalkd.evaluation.scores import scores

__all__ = [
    "Interval",
    "McNemar",
    "aligned",
    "difference_intervals",
    "differences",
    "group_resamples",
    "intervals",
    "mcnemar",
    "resampled_scores",
    "score_intervals",
]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % interval.

    Attributes:
        value: the score of the frames as they are; NaN where it is not defined.
        low: 2.5th percentile of the resamples; NaN where it cannot be told.
        high: 97.5th percentile of the resamples; NaN where it cannot be told.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of two networks on the same frames.

    Attributes:
        only_first: frames that the first network alone has right.
        only_second: frames that the second network alone has right.
        p_value: two-sided; how likely counts at least as unequal are if both networks are right equally often.
    """

    only_first: int
    only_second: int
    p_value: float


def group_resamples(groups: Sequence[str], repeats: int = 1000, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw as many groups as there are, with replacement, and give the frames of those drawn.

    Groups are numbered by their first appearance, so that the draws depend on the seed and the order of the frames, but
    not on what the groups are called: pseudonyms differ from one datalist to the next.

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
    if not len(groups) or repeats < 1:
        raise ValueError(f"A bootstrap takes a group and a repeat at least, got {len(groups)} and {repeats}.")
    members: dict[str, list[int]] = {}
    for frame, group in enumerate(groups):
        members.setdefault(group, []).append(frame)
    frames = [np.array(indices) for indices in members.values()]
    generator = np.random.default_rng(seed)
    for _ in range(repeats):
        yield np.concatenate([frames[group] for group in generator.integers(len(frames), size=len(frames))])


def resampled_scores(
    predictions: Predictions,
    score: Callable[[Predictions], Mapping[Key, float]],
    repeats: int = 1000,
    seed: int = 0,
) -> dict[Key, np.ndarray]:
    """Scores of the frames and of each bootstrap resample of their groups, to make several intervals from one pass.

    Args:
        predictions: one network's probabilities.
        score: gives scores by name, always the same names; NaN where one is not defined.
        repeats: number of resamples.
        seed: of the resamples.

    Returns:
        For each score float64 of shape (1 + repeats,): of the frames as they are, then of each resample. With a single
        group, of which nothing can be learnt about others, the resamples are NaN.
    """
    names, *_ = rows = [score(predictions)]
    if len(set(predictions.groups)) > 1:
        rows += [score(predictions.take(frames)) for frames in group_resamples(predictions.groups, repeats, seed)]
    else:
        rows += [dict.fromkeys(names, math.nan)] * repeats
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}


def score_intervals(resampled: Mapping[Key, np.ndarray]) -> dict[Key, Interval]:
    """Percentile intervals of :func:`resampled_scores`.

    Resamples in which a score is not defined, for want of a class, are left out; where they are more than half, the
    interval is NaN.

    Args:
        resampled: what :func:`resampled_scores` returns.

    Returns:
        The interval of each score.

    Example:
        >>> score_intervals({"accuracy": np.array([0.5, 0.0, 0.5, 1.0])})
        {'accuracy': Interval(value=0.5, low=0.025, high=0.975)}
    """
    return {name: _interval(values) for name, values in resampled.items()}


def difference_intervals(first: Mapping[Key, np.ndarray], second: Mapping[Key, np.ndarray]) -> dict[Key, Interval]:
    """Percentile intervals of second minus first, resample by resample.

    Args:
        first: what :func:`resampled_scores` returns for one network.
        second: the same for another, on the same frames in the same order, with the same repeats and seed.

    Returns:
        The interval of the difference in each score.
    """
    return {name: _interval(second[name] - first[name]) for name in first}


def intervals(
    predictions: Predictions,
    score: Callable[[Predictions], Mapping[str, float]] = scores,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Scores with their 95 % intervals: percentiles of a bootstrap that resamples groups (patients).

    Frames of one patient are alike, so that resampling frames would make every interval too narrow.

    Args:
        predictions: one network's probabilities.
        score: gives scores by name, always the same names; NaN where one is not defined.
        repeats: number of resamples.
        seed: of the resamples.

    Returns:
        The interval of each score. It is NaN where there is a single group, or where the score is not defined in more
        than half of the resamples.

    References:
        Field & Welsh, "Bootstrapping clustered data", J R Stat Soc B 69(3), 2007, doi 10.1111/j.1467-9868.2007.00593.x
    """
    return score_intervals(resampled_scores(predictions, score, repeats, seed))


def differences(
    first: Predictions,
    second: Predictions,
    score: Callable[[Predictions], Mapping[str, float]] = scores,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Second minus first, with 95 % intervals: a paired bootstrap, in which both are scored on the same resamples.

    Args:
        first: probabilities of one network.
        second: those of another on the same frames, in any order.
        score: gives scores by name, always the same names; NaN where one is not defined.
        repeats: number of resamples.
        seed: of the resamples.

    Returns:
        The interval of the difference in each score.

    Raises:
        ValueError: if the class tables or the frames differ.
    """
    second = aligned(first, second)
    return difference_intervals(
        resampled_scores(first, score, repeats, seed), resampled_scores(second, score, repeats, seed)
    )


def mcnemar(first: Predictions, second: Predictions) -> McNemar:
    """McNemar's exact test: is one network right where the other is wrong more often than the other way round?

    Under the hypothesis that both are right equally often, the frames that only the first has right are binomial, with
    probability one half, among those that only one has right. The test takes frames as independent.

    Args:
        first: probabilities of one network.
        second: those of another on the same frames, in any order.

    Returns:
        The two counts and the two-sided p value; 1 where the networks are right on the same frames.

    Raises:
        ValueError: if the class tables or the frames differ.

    References:
        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12(2), 1947, doi 10.1007/BF02295996
    """
    second = aligned(first, second)
    first_right, second_right = first.classes == first.labels, second.classes == second.labels
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    unequal = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, unequal).pvalue) if unequal else 1.0)


def aligned(
    first: Predictions, second: Predictions, first_name: str = "the first", second_name: str = "the second"
) -> Predictions:
    """The second predictions in the order of the first ones.

    Args:
        first: probabilities of one network.
        second: those of another, on the same frames with the same labels and groups.
        first_name: what to call the first in an error.
        second_name: what to call the second in an error.

    Returns:
        ``second``, its frames in the order of ``first``.

    Raises:
        ValueError: if the class tables, the frames, or the label or group of a frame differ.
    """
    if first.class_names != second.class_names:
        raise ValueError(
            f"The class tables of {first_name} {list(first.class_names)} and of {second_name} "
            f"{list(second.class_names)} differ: evaluate networks side by side that tell the same classes apart."
        )
    for one, other, name in ((first, second, second_name), (second, first, first_name)):
        known = set(other.files)
        for file in one.files:
            if file not in known:
                raise ValueError(f"There is no frame '{file}' in {name}: networks are compared on the same frames.")
    position = {file: index for index, file in enumerate(second.files)}
    second = second.take(np.array([position[file] for file in first.files]))
    names = first.class_names
    for index, file in enumerate(first.files):
        for what, here, there in (
            ("class", names[first.labels[index]], names[second.labels[index]]),
            ("group", first.groups[index], second.groups[index]),
        ):
            if here != there:
                raise ValueError(
                    f"The frame '{file}' is of {what} '{here}' in {first_name}, but of '{there}' in {second_name}."
                )
    return second


def _interval(values: np.ndarray) -> Interval:
    """The interval of a score from its value and those of its resamples."""
    value, resamples = float(values[0]), values[1:]
    if np.isnan(resamples).mean() > 0.5:
        return Interval(value, math.nan, math.nan)
    low, high = np.nanquantile(resamples, (0.025, 0.975))
    return Interval(value, float(low), float(high))
