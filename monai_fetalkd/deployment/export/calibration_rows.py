"""The frames that the ranges of an INT8 network are measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["balanced_rows"]


def balanced_rows(
    rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], per_class: int = 32, seed: int = 0
) -> list[Mapping[str, Any]]:
    """Draw as many frames of each class, so that rare planes have their say in the ranges too.

    Args:
        rows: rows of a datalist, each with its ``label``.
        class_names: the class table.
        per_class: frames of a class; a class with fewer gives all it has.
        seed: of the draw.

    Returns:
        The drawn rows, class after class.

    Raises:
        ValueError: when a class has no frame at all, or less than one frame is asked for.

    Example:
        >>> rows = [{"image": f"{number}.png", "label": int(number > 6)} for number in range(9)]
        >>> [row["label"] for row in balanced_rows(rows, ["brain", "femur"], per_class=3)]
        [0, 0, 0, 1, 1]
    """
    if per_class < 1:
        raise ValueError(f"INT8 is calibrated on at least one frame of each class, not on {per_class}.")
    generator = np.random.default_rng(seed)
    drawn: list[Mapping[str, Any]] = []
    for label, name in enumerate(class_names):
        candidates = [row for row in rows if row["label"] == label]
        if not candidates:
            raise ValueError(
                f"There is no frame of '{name}' to calibrate INT8 on: give a datalist that has frames of every class."
            )
        drawn += [candidates[index] for index in generator.permutation(len(candidates))[:per_class]]
    return drawn
