"""What makes a table of predictions one that can be scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["RowError", "check_frames", "check_shapes"]

# float16 probabilities are further off than this, and so are logits: both deserve a word before they are scored
_SUM_TOLERANCE = 1e-4


class RowError(ValueError):
    """A frame that cannot be scored, and its position in the table."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


def check_shapes(
    classes: Sequence[str],
    files: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    known: Mapping[str, ArrayLike],
) -> None:
    """Refuse a class table of one class, and columns of different lengths.

    Args:
        classes: the class table.
        files: path of each frame.
        labels: index of the class of each frame.
        probabilities: of each frame and class.
        known: the other columns by name.

    Raises:
        ValueError: naming the column.
    """
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        raise ValueError(f"A class table has two or more different names, but this one is {list(classes)}.")
    if not files:
        raise ValueError("There are no frames to score.")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"Labels are indices of classes, integers, but got {labels.dtype}.")
    frames = len(files)
    if probabilities.shape != (frames, len(classes)):
        raise ValueError(
            f"{frames} frames of {len(classes)} classes have probabilities of shape {(frames, len(classes))}, "
            f"but got {probabilities.shape}."
        )
    columns: dict[str, ArrayLike] = {"labels": labels, **known}
    for name, values in columns.items():
        if np.shape(values) != (frames,):
            raise ValueError(f"There are {frames} frames, but {name} have the shape {np.shape(values)}.")


def check_frames(
    classes: Sequence[str],
    files: Sequence[str],
    groups: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """Refuse what cannot be scored in a single frame.

    Args:
        classes: the class table.
        files: path of each frame.
        groups: patient of each frame.
        labels: index of the class of each frame.
        probabilities: of each frame and class.

    Raises:
        RowError: of the first frame, naming it and the class.
    """
    seen: set[str] = set()
    for position, (file, group) in enumerate(zip(files, groups, strict=True)):
        if file in seen:
            raise RowError(position, f"'{file}' is listed twice: each frame counts once.")
        if not group:
            raise RowError(position, f"'{file}' has an empty group: a file without a patient is its own group.")
        seen.add(file)

    for position in np.flatnonzero((labels < 0) | (labels >= len(classes))).tolist():
        raise RowError(
            position,
            f"'{files[position]}' has the label {labels[position]}, but the {len(classes)} classes count from 0.",
        )
    for position, column in np.argwhere(~np.isfinite(probabilities) | (probabilities < 0)).tolist():
        raise RowError(
            position,
            f"'{files[position]}' has the probability {probabilities[position, column]:g} of '{classes[column]}': "
            "the network's output is broken, or is not a probability.",
        )
    sums = probabilities.sum(axis=1)
    for position in np.flatnonzero(np.abs(sums - 1) > _SUM_TOLERANCE).tolist():
        raise RowError(
            position,
            f"the probabilities of '{files[position]}' sum to {sums[position]:g}, not to 1: give the softmax of the "
            "logits, in float32.",
        )
