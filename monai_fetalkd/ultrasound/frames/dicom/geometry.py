"""Where the B-mode picture is in a DICOM frame, and the shape and size of its pixels."""

from __future__ import annotations

from pydicom.dataset import Dataset

from ..frame import MIN_SIDE
from .elements import functional_groups, items, number, numbers

__all__ = ["b_mode_pixel_size", "b_mode_region", "pixel_ratio"]

_TWO_DIMENSIONAL, _TISSUE = 1, 1  # region spatial format and data type
_CENTIMETRES = 3  # physical units
_CORNERS = ("MinY0", "MinX0", "MaxY1", "MaxX1")
_MOST_REGIONS = 100

Box = tuple[int, int, int, int]


def b_mode_region(elements: Dataset, rows: int, columns: int) -> Box | None:
    """The largest B-mode region, or the box around several that lie side by side and are of like size (dual view).

    Args:
        elements: the header.
        rows: height of the frame.
        columns: its width.

    Returns:
        ``(top, left, bottom, right)``, the ends excluded; None where there is none that fits the pixels.

    References:
        DICOM PS3.3, section C.8.5.5 (ultrasound regions).
    """
    boxes = [box for _, box in _b_mode_regions(elements, rows, columns)]
    if not boxes:
        return None
    largest = max(boxes, key=_area)
    views = [box for box in boxes if 2 * _area(box) > _area(largest) > 10 * _overlap(box, largest)]
    top, left, bottom, right = zip(largest, *views, strict=True)
    return min(top), min(left), max(bottom), max(right)


def b_mode_pixel_size(elements: Dataset, rows: int, columns: int) -> tuple[float, float] | None:
    """Height and width of a pixel in mm, where all B-mode regions tell the same.

    Args:
        elements: the header.
        rows: height of the frame.
        columns: its width.

    Returns:
        Height and width; None where a region does not tell them in centimetres, two differ, or there is no region.

    References:
        DICOM PS3.3, section C.8.5.5 (ultrasound regions).
    """
    sizes = {_size(region) for region, _ in _b_mode_regions(elements, rows, columns)}
    return sizes.pop() if len(sizes) == 1 else None


def pixel_ratio(elements: Dataset, frame: int) -> float:
    """Height of a pixel for its width, 1 where the header does not tell."""
    for group in functional_groups(elements, "PixelMeasuresSequence", frame):
        for keyword in ("PixelSpacing", "PixelAspectRatio"):
            sides = numbers(group, keyword)
            if len(sides) == 2 and all(side > 0 for side in sides):
                return sides[0] / sides[1]
    return 1.0


def _b_mode_regions(elements: Dataset, rows: int, columns: int) -> list[tuple[Dataset, Box]]:
    regions = items(elements, "SequenceOfUltrasoundRegions")[:_MOST_REGIONS]
    return [(region, box) for region in regions if (box := _box(region, rows, columns)) is not None]


def _size(region: Dataset) -> tuple[float, float] | None:
    sides = []
    for axis in "YX":
        delta = number(region, f"PhysicalDelta{axis}")
        if number(region, f"PhysicalUnits{axis}Direction") != _CENTIMETRES or not delta:
            return None
        sides.append(10 * abs(delta))  # negative where an axis points left or up
    return sides[0], sides[1]


def _box(region: Dataset, rows: int, columns: int) -> Box | None:
    if (number(region, "RegionSpatialFormat"), number(region, "RegionDataType")) != (_TWO_DIMENSIONAL, _TISSUE):
        return None
    corners = [number(region, f"RegionLocation{corner}") for corner in _CORNERS]
    if None in corners:
        return None
    top, left, bottom, right = (int(corner) for corner in corners if corner is not None)
    if bottom > rows or right > columns:
        return None
    # the last row and column belong to the region, though some machines write the first beyond
    bottom, right = min(bottom + 1, rows), min(right + 1, columns)
    return (top, left, bottom, right) if min(bottom - top, right - left) >= MIN_SIDE else None


def _area(box: Box) -> int:
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


def _overlap(one: Box, other: Box) -> int:
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    return max(height, 0) * max(width, 0)
