"""How sure a score is: a bootstrap that resamples patients, not frames, and two networks on the same frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.stats import binomtest

from .calibration import calibration_scorer, calibration_scores
from .classification import part_scores, scores
from .predictions import Predictions
from .resamples import Scorer, group_resamples, score_resamples
from .scorer import headline_scorer, part_scorer

__all__ = [
    "Interval",
    "McNemar",
    "aligned",
    "difference_intervals",
    "differences",
    "exact_interval",
    "intervals",
    "mcnemar",
    "resampled_at_once",
    "resampled_scores",
    "score_intervals",
]

Key = TypeVar("Key", bound=Hashable)

#: What prepares scores that are computed for all resamples at once, by the function that gives them for one table.
_AT_ONCE: dict[Callable[..., Any], Callable[..., Scorer[Any]]] = {
    scores: headline_scorer,
    part_scores: part_scorer,
    calibration_scores: calibration_scorer,
}

_ROUNDING = 1e-12  # sums of floats in another order differ by less


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


def resampled_scores(
    predictions: Predictions,
    score: Callable[[Predictions], Mapping[Key, float]],
    repeats: int = 1000,
    seed: int = 0,
) -> dict[Key, np.ndarray]:
    """Scores of the frames and of each bootstrap resample of their groups, to make several intervals from one pass.

    The scores of this package take all resamples at once; any other function is called for one after the other.

    Args:
        predictions: one network's probabilities.
        score: gives scores by name, always the same names; NaN where one is not defined.
        repeats: number of resamples.
        seed: of the resamples.

    Returns:
        For each score float64 of shape (1 + repeats,): of the frames as they are, then of each resample. With a single
        group, of which nothing can be learnt about others, the resamples are NaN.
    """
    if score in _AT_ONCE:
        return resampled_at_once(predictions, _AT_ONCE[score], repeats, seed)
    names, *_ = rows = [score(predictions)]
    if _has_groups(predictions):
        rows += [score(predictions.take(frames)) for frames in group_resamples(predictions.groups, repeats, seed)]
    else:
        rows += [dict.fromkeys(names, math.nan)] * repeats
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}


def resampled_at_once(
    predictions: Predictions,
    scorer_of: Callable[[Predictions, np.ndarray], Scorer[Key]],
    repeats: int = 1000,
    seed: int = 0,
) -> dict[Key, np.ndarray]:
    """The same as :func:`resampled_scores`, of scores that take all resamples at once.

    Args:
        predictions: one network's probabilities.
        scorer_of: prepares the scores, such as :func:`~monai_fetalkd.evaluation.scores.scorer.scorer`.
        repeats: number of resamples.
        seed: of the resamples.

    Returns:
        What :func:`resampled_scores` returns.
    """
    found = score_resamples(scorer_of, predictions, repeats, seed)
    if not _has_groups(predictions):
        for values in found.values():
            values[1:] = math.nan
    return found


def score_intervals(resampled: Mapping[Key, np.ndarray]) -> dict[Key, Interval]:
    """Percentile intervals of :func:`resampled_scores`.

    Resamples in which a score is not defined, for want of a class, are left out; where they are more than half, the
    interval is NaN. It is NaN too where all resamples give one value: then they tell nothing of how far the score would
    move with other patients.

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
        The interval of each score. It is NaN where there is a single group, where the score is not defined in more than
        half of the resamples, or where it is the same in all of them.

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


def exact_interval(value: float, groups: int) -> Interval:
    """Clopper and Pearson's exact interval of a share of 0 or 1, for which all resamples are alike.

    What is counted are groups (patients), all of whose frames are right, or wrong: their frames are not independent.

    Args:
        value: 0 or 1.
        groups: number of groups.

    Returns:
        The 95 % interval.

    References:
        Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
        Biometrika 26(4), 1934, doi 10.1093/biomet/26.4.404

    Example:
        >>> exact_interval(1.0, groups=10)
        Interval(value=1.0, low=0.69..., high=1.0)
    """
    found = binomtest(round(value * groups), groups).proportion_ci(confidence_level=0.95, method="exact")
    return Interval(value, float(found.low), float(found.high))


def _has_groups(predictions: Predictions) -> bool:
    return len(set(predictions.groups)) > 1


def _interval(values: np.ndarray) -> Interval:
    """The interval of a score from its value and those of its resamples."""
    value, resamples = float(values[0]), values[1:]
    defined = resamples[~np.isnan(resamples)]
    if 2 * len(defined) < len(resamples) or np.ptp(defined) <= _ROUNDING * max(1.0, abs(value)):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(defined, (0.025, 0.975))
    return Interval(value, float(low), float(high))
