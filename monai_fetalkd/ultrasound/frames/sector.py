"""The scan sector of an ultrasound frame: where the probe has looked, without the text, rulers and logos around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Sector", "crop_to_sector", "find_sector"]

Mask = NDArray[np.bool_]
Profile = NDArray[Any]

# Lengths are in cells: one pixel of every step-th row and column, so that the longer side has about this many. A stroke
# of text is then about one cell wide, whatever the size of the frame.
_CELLS = 160
_FEWEST_CELLS = 4  # across the shorter side of a frame that is very long
_DARKEST_TISSUE = 5  # grey levels above the background
_SMOOTHING = 2  # radius in which most cells must be tissue; no text is that dense
_REGROWTH = 1  # corners lose less than this to the smoothing
_DARK = 32  # grey levels: a background is darker; what is brighter and flat has been drawn, as no tissue is flat
_SMALLEST_PART = 0.025  # of the frame: shadows divide the tissue into larger parts than this, logos are smaller
_SMALLEST_SECTOR = 0.1  # of the frame
_SMALLEST_ARC = 5  # half the width of a near field
_ARC_MISFIT = 1.5


@dataclass(frozen=True)
class Sector:
    """Where the tissue is in a frame.

    Attributes:
        box: ``(top, left, bottom, right)`` in pixels of the frame, half-open, the smallest that holds the sector.
        mask: booleans of the size of the box, true inside the sector.
    """

    box: tuple[int, int, int, int]
    mask: Mask


def find_sector(pixels: NDArray[Any]) -> Sector:
    """Find the scan sector in the grey levels of a frame.

    What is brighter than the background, densely so, and not drawn in one flat colour is tissue. The sector is the
    convex hull of the tissue, so that fluid and shadows stay inside, less the segment of a circle that a curved probe
    leaves black at the top. Where there is too little tissue for a sector, the whole frame is one: no anatomy is lost
    for a doubt. Text that lies on the tissue stays.

    Args:
        pixels: grey levels 0 to 255 of shape ``(H, W)``, of any type.

    Returns:
        The sector; the whole frame where none stands out.

    Raises:
        ValueError: the pixels are not two-dimensional, or less than two on a side.

    Example:
        >>> frame = np.zeros((120, 160))
        >>> frame[20:100, 30:130] = np.random.default_rng(0).uniform(40, 200, (80, 100))
        >>> find_sector(frame).box
        (20, 30, 100, 130)
    """
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        raise ValueError(f"A sector is found in a frame of shape (H, W), not {tuple(pixels.shape)}: pass one channel.")
    height, width = pixels.shape
    step = max(1, min(round(max(height, width) / _CELLS), min(height, width) // _FEWEST_CELLS))
    tissue = _find_tissue(pixels, step)
    if not tissue.any():
        return Sector((0, 0, height, width), np.ones((height, width), dtype=bool))

    row_edges, column_edges = (step * np.arange(count + 1) for count in tissue.shape)
    row_edges[-1], column_edges[-1] = height, width  # the last cells reach to the end of the frame
    rows = np.flatnonzero(tissue.any(axis=1))
    first = tissue[rows].argmax(axis=1)
    last = tissue.shape[1] - 1 - tissue[rows, ::-1].argmax(axis=1)
    top, bottom = int(row_edges[rows[0]]), int(row_edges[rows[-1] + 1])
    left, right = int(column_edges[first.min()]), int(column_edges[last.max() + 1])

    y = np.arange(top, bottom)
    centres = (row_edges[rows] + row_edges[rows + 1] - 1) / 2
    starts = _convex_envelope(centres, column_edges[first], y)
    stops = -_convex_envelope(centres, -column_edges[last + 1], y)
    runs = np.stack([starts - left, stops - left]).round().astype(np.intp)
    inner = tissue[rows[0] : rows[-1] + 1, first.min() : last.max() + 1]
    at = step // 2 + step * np.arange(max(inner.shape))  # the pixels that cells stand for
    from_column, to_column = runs[:, at[: len(inner)], None]
    hull = (from_column <= at[: inner.shape[1]]) & (at[: inner.shape[1]] < to_column)
    arc = _near_field(inner, hull)
    mask = _between(runs, right - left)
    if arc is not None:
        surface = np.interp(np.arange(right - left), step * arc[0], step * arc[1], left=0, right=0)
        black = np.arange(int(surface.max()))[:, None] < surface.astype(np.intp)
        mask[: len(black)] &= ~black
    return Sector((top, left, bottom, right), mask)


def crop_to_sector(pixels: NDArray[Any], region: tuple[int, int, int, int] | None = None) -> NDArray[Any]:
    """Cut a frame to its scan sector and blank all around it.

    Args:
        pixels: grey levels 0 to 255 of shape ``(H, W)``, of any type.
        region: ``(top, left, bottom, right)`` of the B-mode picture, where the file has told one: what lies outside is
            cut away before the sector is looked for.

    Returns:
        What :func:`find_sector` finds, as a new array of the same type, 0 outside the sector.

    Raises:
        ValueError: see :func:`find_sector`.

    Example:
        >>> frame = np.zeros((120, 160))
        >>> frame[20:100, 30:130] = np.random.default_rng(0).uniform(40, 200, (80, 100))
        >>> frame[5:8, 5:25] = 255  # a logo
        >>> crop_to_sector(frame).shape
        (80, 100)
    """
    if region is not None:
        top, left, bottom, right = region
        pixels = pixels[top:bottom, left:right]
    sector = find_sector(pixels)
    top, left, bottom, right = sector.box
    # numpy multiplies by booleans slowly; as bytes they are no copy
    return pixels[top:bottom, left:right] * sector.mask.view(np.uint8).astype(pixels.dtype, copy=False)


def _find_tissue(pixels: NDArray[Any], step: int) -> Mask:
    """One boolean a cell; none is true where there is too little tissue for a sector."""
    start = step // 2
    cells = np.ascontiguousarray(pixels[start:-1:step, start:-1:step])
    flat = (cells == pixels[start:-1:step, start + 1 :: step]) & (cells == pixels[start + 1 :: step, start:-1:step])
    levels = np.bincount(np.clip(cells[flat], 0, _DARK).astype(np.intp), minlength=_DARK + 1)[:_DARK]
    background = int(levels.argmax()) if levels.max() > _SMALLEST_SECTOR * cells.size else 0
    bright = (cells > background + _DARKEST_TISSUE) & ~(flat & (cells > _DARK))
    parts, _ = ndimage.label(2 * _count_around(bright, _SMOOTHING) > (2 * _SMOOTHING + 1) ** 2)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    large = areas > _SMALLEST_PART * cells.size
    if areas[large].sum() < _SMALLEST_SECTOR * cells.size:
        return np.zeros_like(bright)
    return bright & (_count_around(large[parts], _REGROWTH) > 0)


def _count_around(mask: Mask, radius: int) -> NDArray[np.uint8]:
    """How many are true in the square around each cell; outside of the frame none is."""
    height, width = mask.shape
    padded = np.zeros((height + 2 * radius, width + 2 * radius), dtype=np.uint8)  # np.pad takes longer than all else
    padded[radius:-radius, radius:-radius] = mask
    shifts = range(2 * radius + 1)
    rows = reduce(np.add, (padded[shift : shift + height] for shift in shifts))
    return reduce(np.add, (rows[:, shift : shift + width] for shift in shifts))


def _convex_envelope(x: Profile, y: Profile, at: Profile) -> Profile:
    """The largest convex function below the points, whose ``x`` increase, at these places."""
    while len(x) > 2:
        slope = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
        corner = np.ones(len(x), dtype=bool)
        np.less(slope[:-1], slope[1:], out=corner[1:-1])
        if corner.all():
            break
        x, y = x[corner], y[corner]
    return np.interp(at, x, y)


def _between(runs: NDArray[np.intp], width: int) -> Mask:
    """A mask with one run a row; comparing all columns with the ends of all rows takes ten times as long."""
    lengths = np.stack([runs[0], runs[1] - runs[0], width - runs[1]], axis=1)  # outside, inside and outside again
    return np.repeat(np.tile([False, True, False], len(lengths)), lengths.ravel()).reshape(-1, width)


def _near_field(tissue: Mask, hull: Mask) -> tuple[Profile, Profile] | None:
    """The arc of a curved probe as columns and rows, in cells, or nothing where the top of the tissue is no arc.

    Above it a segment of a circle is black. The widest gap between the hull and the tissue is compared with that: with
    a chord of half-length c, a column of depth g at the distance d from its middle asks for a segment of the height s
    where (c^2 - s^2) / s = (c^2 - d^2 - g^2) / g. Most columns must agree; shadows under the probe are deeper.
    """
    top, surface = hull.argmax(axis=0), tissue.argmax(axis=0)
    is_gap = np.zeros(len(top) + 2, dtype=bool)
    is_gap[1:-1] = surface > top + 1
    gaps = np.flatnonzero(is_gap[1:] != is_gap[:-1]).reshape(-1, 2)
    start, stop = max(gaps, key=lambda gap: gap[1] - gap[0], default=(0, 0))
    half = (stop - start) / 2
    if half < _SMALLEST_ARC or start == 0 or stop == len(top):  # the sector opens on both sides of the probe
        return None
    distance = np.arange(start, stop) + 0.5 - start - half
    chord = np.linspace(top[start], top[stop - 1], stop - start)
    depth = np.maximum(surface[start:stop] - chord, 0.5)
    middle = np.abs(distance) < 0.8 * half  # at the ends, one cell more or less says nothing
    ratio = (half**2 - distance**2 - depth**2) / depth
    heights = np.sort((np.hypot(ratio, 2 * half) - ratio)[middle] / 2)
    height = np.interp(
        0.25 * (len(heights) - 1), np.arange(len(heights)), heights
    )  # np.quantile takes ten times as long
    radius = (half**2 + height**2) / (2 * height)
    arc = np.sqrt(np.maximum(radius**2 - distance**2, 0)) - (radius - height)
    if np.mean(np.abs(depth - arc)[middle] <= _ARC_MISFIT) < 0.5:
        return None
    return np.arange(start, stop) + 0.5, chord + arc
