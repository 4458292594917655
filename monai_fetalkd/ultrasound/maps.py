"""When a map of a network (attention, Grad-CAM) is fine enough to be shown over a frame."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LEAST_POSITIONS", "is_fine"]

#: Positions that a map needs on each side. A coarser one, enlarged to the frame, would seem to point at anatomy.
LEAST_POSITIONS = 7


def is_fine(grid: Sequence[int]) -> bool:
    """Whether a map may be shown over a frame.

    Args:
        grid: its rows and columns.

    Returns:
        Whether it has at least :data:`LEAST_POSITIONS` of each.

    Example:
        >>> is_fine((7, 7)), is_fine((2, 2))
        (True, False)
    """
    return min(grid) >= LEAST_POSITIONS
