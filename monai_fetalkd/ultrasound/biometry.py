"""Measurements of the fetus from masks: the head circumference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ellipe

__all__ = ["Ellipse", "fit_ellipse", "head_circumference", "head_ellipse"]


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in the plane of a frame, in the unit of the points that it was fitted to.

    Attributes:
        center: row and column of its centre.
        semi_axes: the longer and the shorter semi-axis.
        angle: angle of the longer axis, in radians from the row axis towards the column axis, in [0, pi).
    """

    center: tuple[float, float]
    semi_axes: tuple[float, float]
    angle: float

    @property
    def circumference(self) -> float:
        r"""Its length, :math:`4 a E(1 - b^2 / a^2)` with the complete elliptic integral of the second kind."""
        long, short = self.semi_axes
        return float(4.0 * long * ellipe(1.0 - (short / long) ** 2))

    def points(self, count: int = 100) -> NDArray[np.float64]:
        """Points of the ellipse, to draw it.

        Args:
            count: number of points.

        Returns:
            Rows and columns, ``[count, 2]``.
        """
        turn = np.linspace(0.0, 2.0 * math.pi, count, endpoint=False)
        along, across = self.semi_axes[0] * np.cos(turn), self.semi_axes[1] * np.sin(turn)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.stack([along * cos - across * sin, along * sin + across * cos], axis=1) + self.center


def fit_ellipse(points: NDArray[np.floating] | Sequence[Sequence[float]]) -> Ellipse:
    r"""Fit an ellipse to points by direct least squares.

    Of all conics :math:`A y^2 + B x y + C x^2 + D y + E x + F = 0` with :math:`4 A C - B^2 = 1`, that is, of all
    ellipses, it is the one of the smallest sum of squares of the left side over the points. The points are centred and
    scaled first.

    Args:
        points: rows and columns, ``[N, 2]``, in any unit of length. Five or more, not on a line; part of the outline
            is enough.

    Returns:
        The ellipse, in the unit of the points.

    Raises:
        ValueError: when the points are too few, not finite or lie on no ellipse.

    Example:
        >>> found = fit_ellipse(Ellipse((40.0, 60.0), (30.0, 20.0), 0.5).points(50))
        >>> [round(value, 6) for value in (*found.center, *found.semi_axes, found.angle)]
        [40.0, 60.0, 30.0, 20.0, 0.5]

    References:
        Halir R., Flusser J. Numerically stable direct least squares fitting of ellipses. WSCG 1998; after Fitzgibbon
        A., Pilu M., Fisher R. Direct least square fitting of ellipses. IEEE TPAMI 21(5), 1999, doi 10.1109/34.765658.
    """
    given = np.asarray(points, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != 2 or len(given) < 5 or not np.isfinite(given).all():
        raise ValueError(f"an ellipse is fitted to five finite points or more, [N, 2], got shape {given.shape}")
    middle = given.mean(axis=0)
    scale = float(np.abs(given - middle).max())
    if scale == 0.0:
        raise ValueError("an ellipse cannot be fitted to points that are all the same")
    y, x = ((given - middle) / scale).T
    quadratic = np.stack([y * y, x * y, x * x], axis=1)
    linear = np.stack([y, x, np.ones_like(x)], axis=1)
    try:
        reduced = -np.linalg.solve(linear.T @ linear, linear.T @ quadratic)
        scatter = quadratic.T @ quadratic + quadratic.T @ linear @ reduced
        _, vectors = np.linalg.eig(np.stack([scatter[2] / 2, -scatter[1], scatter[0] / 2]))
    except np.linalg.LinAlgError:
        raise ValueError("an ellipse cannot be fitted to points on a line") from None
    vectors = vectors.real
    is_ellipse = 4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 1e-12
    if is_ellipse.sum() != 1:
        raise ValueError("an ellipse cannot be fitted to these points: they lie on a line or two")
    first = vectors[:, is_ellipse][:, 0]
    return _from_conic(np.concatenate([first, reduced @ first]), middle, scale)


def _from_conic(conic: NDArray[np.float64], middle: NDArray[np.float64], scale: float) -> Ellipse:
    matrix = np.array([[conic[0], conic[1] / 2], [conic[1] / 2, conic[2]]])
    center = -np.linalg.solve(matrix, conic[3:5]) / 2
    level = -(conic[5] + conic[3:5] @ center / 2)
    values, directions = np.linalg.eigh(matrix / level)  # 1 / a^2 and 1 / b^2, smallest first
    long, short = scale / np.sqrt(values)
    along = directions[:, 0]
    row, column = middle + scale * center
    return Ellipse((float(row), float(column)), (float(long), float(short)), math.atan2(along[1], along[0]) % math.pi)


def head_ellipse(mask: NDArray[np.generic], pixel_size: float | Sequence[float] = 1.0) -> Ellipse | None:
    """Fit an ellipse to the outline of the largest connected region of a mask.

    The outline runs midway between pixels inside and outside; holes do not count. Where the region is cut by the border
    of the frame it has no outline, so the ellipse goes on outside the frame.

    Args:
        mask: ``[rows, columns]``; what is not zero is inside.
        pixel_size: length of a pixel, or its height and width, in mm. 1 gives an ellipse in pixels.

    Returns:
        The ellipse in mm, with the centre of the first pixel as origin; None where the mask is empty or its region too
        small for an ellipse.

    Raises:
        ValueError: when the mask is not 2-D or a pixel size is not positive and finite.

    Example:
        >>> rows, columns = np.mgrid[:100, :120]
        >>> disc = (rows - 50) ** 2 + (columns - 60) ** 2 < 30**2
        >>> round(head_ellipse(disc, pixel_size=0.5).semi_axes[0], 1)
        15.0
    """
    spacing = np.broadcast_to(np.asarray(pixel_size, dtype=np.float64), 2)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ValueError(f"pixel_size must be positive and finite, in mm, got {pixel_size}")
    inside = np.asarray(mask).astype(bool, copy=False)
    if inside.ndim != 2:
        raise ValueError(f"the mask of a head is 2-D, got shape {inside.shape}")
    if not inside.any():
        return None
    places = [np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0)]
    box = [(max(0, found[0] - 1), found[-1] + 2) for found in places]  # with a margin, but for the border of the frame
    region = inside[tuple(slice(*sides) for sides in box)]
    if not _is_one_piece(region):
        region = _without_holes(_largest(region))
    edges = _outline(region) + np.array([first for first, _ in box])
    try:
        return fit_ellipse(edges * spacing)
    except ValueError:  # of a region of a few pixels, or a line
        return None


def _is_one_piece(region: NDArray[np.bool_]) -> bool:
    """Whether each row is one run of pixels that touches that above: connected and without holes, as most heads are."""
    present = np.flatnonzero(region.any(axis=1))
    rows = region[present[0] : present[-1] + 1]  # an empty row between two pieces is no run
    first, stop = rows.argmax(axis=1), rows.shape[1] - rows[:, ::-1].argmax(axis=1)
    if (np.count_nonzero(rows, axis=1) != stop - first).any():
        return False
    return bool((np.maximum(first[1:], first[:-1]) < np.minimum(stop[1:], stop[:-1])).all())


def _largest(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    regions, count = ndimage.label(region)
    return region if count == 1 else regions == 1 + np.argmax(np.bincount(regions.ravel())[1:])


def _without_holes(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    around, _ = ndimage.label(np.pad(~region, 1, constant_values=True))
    return (around != around[0, 0])[1:-1, 1:-1]


def _outline(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Points midway between pixels of the region and neighbours around it: [N, 2]."""
    across, down = _places(np.diff(region, axis=1)), _places(np.diff(region, axis=0))
    return np.concatenate([np.add(across, (0.0, 0.5)), np.add(down, (0.5, 0.0))])


def _places(values: NDArray[np.bool_]) -> NDArray[np.intp]:
    # np.argwhere, eight times as fast
    return np.stack(np.unravel_index(np.flatnonzero(values), values.shape), axis=1)


def head_circumference(mask: NDArray[np.generic], pixel_size: float | Sequence[float] = 1.0) -> float:
    """The head circumference: that of the ellipse that :func:`head_ellipse` fits to a mask.

    Args:
        mask: ``[rows, columns]``; what is not zero is head.
        pixel_size: length of a pixel, or its height and width, in mm.

    Returns:
        The circumference in mm, in pixels for a ``pixel_size`` of 1; NaN where no ellipse can be fitted.

    Raises:
        ValueError: when the mask is not 2-D or a pixel size is not positive and finite.

    Example:
        >>> head_circumference(np.zeros((8, 8)))
        nan
    """
    ellipse = head_ellipse(mask, pixel_size)
    return math.nan if ellipse is None else ellipse.circumference
