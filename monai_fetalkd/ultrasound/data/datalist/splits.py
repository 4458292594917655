"""Splits by group: stratified, and never one patient in two of them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from monai_fetalkd.ultrasound.data.datalist.rows import SECTIONS, Row, without

__all__ = ["TooFewError", "arrange", "group_folds", "held_out"]

_FINEST = 10  # folds tried for a fraction that is no 1 / n; more only take longer and leave rare classes out of folds


class TooFewError(ValueError):
    """There are too few frames or groups to split."""


def arrange(
    rows: list[Row],
    complete: bool,
    *,
    val: float,
    test: float,
    folds: int | None,
    seed: int,
    new_split: bool,
) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Put frames into sections: those of the source as far as it has any, held out by group where it has none.

    Args:
        rows: the frames, with ``section`` where the source has a split.
        complete: whether a source without validation is meant to have none.
        val: fraction of the frames outside testing to hold out for validation.
        test: fraction of the frames to hold out for testing.
        folds: number of folds instead of validation.
        seed: seed of splits and folds.
        new_split: forget the split of the source.

    Returns:
        The frames by section, each in the order of the source, and what of the arguments took effect.

    Raises:
        TooFewError: when the frames or groups are too few.
        ValueError: when a fraction or the number of folds is out of its range.
    """
    if new_split:
        rows = [without(row, "section", "fold") for row in rows]
    if any("section" in row for row in rows):
        applied: dict[str, Any] = {"split": "as in the source"}
        sections = {name: [row for row in rows if row["section"] == name] for name in SECTIONS}
    else:
        applied = {"split": "new", "test": test, "seed": seed}
        sections = _cut(rows, "training", "testing", test, seed)
        complete = False
    if folds is not None:
        outside = sections.get("training", []) + sections.pop("validation", [])
        numbers = group_folds(_strata(outside), [row["group"] for row in outside], folds, seed)
        sections["training"] = [row | {"fold": int(fold)} for row, fold in zip(outside, numbers, strict=True)]
        applied |= {"folds": folds, "seed": seed}
    elif not complete and not sections.get("validation"):
        sections |= _cut(sections["training"], "training", "validation", val, seed)
        applied |= {"val": val, "seed": seed}
    return {
        name: [without(row, "section") for row in sections[name]] for name in SECTIONS if sections.get(name)
    }, applied


def _strata(rows: list[Row]) -> list[int]:
    """The classes to balance: masks, whose labels are paths, have none."""
    return [row["label"] if isinstance(row["label"], int) else 0 for row in rows]


def _cut(rows: list[Row], kept: str, cut: str, fraction: float, seed: int) -> dict[str, list[Row]]:
    if not rows or not fraction:
        return {kept: rows}
    mask = held_out(_strata(rows), [row["group"] for row in rows], fraction, seed)
    return {
        kept: [row for row, out in zip(rows, mask, strict=True) if not out],
        cut: [row for row, out in zip(rows, mask, strict=True) if out],
    }


def group_folds(labels: Sequence[int | str], groups: Sequence[str], folds: int, seed: int = 0) -> np.ndarray:
    """Deal frames into folds of like class balance, each group into one fold.

    The folds depend on the frames and the seed, not on the order of the frames.

    Args:
        labels: the class of each frame.
        groups: the group (patient) of each frame.
        folds: number of folds, two or more.
        seed: seed of the order in which groups of like balance are dealt.

    Returns:
        The fold of each frame, 0 to ``folds - 1``, shape (frames,).

    Raises:
        TooFewError: when there are fewer groups than folds, or no class has a frame for each fold.
        ValueError: when there are fewer than two folds.

    References:
        scikit-learn's :class:`sklearn.model_selection.StratifiedGroupKFold`.

    Example:
        >>> folds = group_folds(["a", "b"] * 4, ["p", "p", "q", "q", "r", "r", "s", "s"], folds=2)
        >>> np.bincount(folds).tolist()
        [4, 4]
    """
    count = len(set(groups))
    if folds < 2:
        raise ValueError(f"Folds must be 2 or more, got {folds}.")
    if count < folds or max(Counter(labels).values()) < folds:
        raise TooFewError(f"{len(labels)} frames of {count} groups are too few for {folds} folds.")
    order = np.lexsort((np.asarray(labels), np.asarray(groups)))
    sorted_labels, sorted_groups = np.asarray(labels)[order], np.asarray(groups)[order]
    result = np.empty(len(order), dtype=int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # said by class and section instead
        for fold, (_, chosen) in enumerate(splitter.split(sorted_labels, sorted_labels, sorted_groups)):
            result[order[chosen]] = fold
    return result


def held_out(labels: Sequence[int | str], groups: Sequence[str], fraction: float, seed: int = 0) -> np.ndarray:
    """Choose about this fraction of each class, whole groups only.

    The frames are dealt into n folds, of which k are held out, with k / n near the fraction. Of the n runs of k
    neighbouring folds it is the one whose fractions by class are nearest to the one wanted: with few groups they
    differ much.

    Args:
        labels: the class of each frame.
        groups: the group (patient) of each frame.
        fraction: the part to hold out, above 0 and at most 0.5.
        seed: seed of the folds.

    Returns:
        Whether each frame is held out, shape (frames,).

    Raises:
        TooFewError: when all frames are of one group.
        ValueError: when the fraction is outside its range.

    Example:
        >>> mask = held_out(["a"] * 10, [f"p{number}" for number in range(10)], fraction=0.2)
        >>> int(mask.sum())
        2
    """
    if not 0 < fraction <= 0.5:
        raise ValueError(f"The fraction to hold out must be above 0 and at most 0.5, got {fraction}.")
    classes, count = Counter(labels), len(set(groups))
    most = min(max(_FINEST, round(1 / fraction)), count, max(classes.values(), default=0))
    if most < 2:
        raise TooFewError(f"{len(labels)} frames of {count} group(s) are too few to hold out {fraction:.0%} by group.")
    share = Fraction(fraction).limit_denominator(most) or Fraction(1, most)
    folds = group_folds(labels, groups, share.denominator, seed)

    of_class = [np.asarray(labels) == label for label in classes]
    neighbours = np.arange(share.numerator)
    candidates = [np.isin(folds, (first + neighbours) % share.denominator) for first in range(share.denominator)]
    return min(
        (mask for mask in candidates if mask.any()),
        key=lambda mask: sum(abs(mask[members].mean() - fraction) for members in of_class),
    )
