"""From stored DICOM pixels to grey levels as they are displayed."""

from __future__ import annotations

import math

import numpy as np
from pydicom.dataset import Dataset

from ..guard import warn_once
from ..levels import grey_levels, luma
from .elements import functional_groups, items, number, numbers, text
from .pixels import Pixels
from .tables import Table, apply_palette

__all__ = ["display_levels"]


def display_levels(path: str, pixels: Pixels, photometric: str, elements: Dataset, frame: int) -> np.ndarray:
    """Grey levels from 0 to 255 of a decoded frame.

    An attribute that cannot be used is left out with a warning.

    Args:
        path: the file, for errors and warnings.
        pixels: the frame.
        photometric: what its header calls its values.
        elements: its header.
        frame: its number.

    Raises:
        FrameError: when all pixels have the same value, or a palette is missing.

    References:
        DICOM PS3.3, sections C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.16.2 (the same for each frame).
    """
    if photometric == "PALETTE COLOR":
        return grey_levels(path, luma(apply_palette(path, pixels.values, elements)))
    low = -(2 ** (pixels.bits - 1)) if pixels.signed else 0
    ends = (float(low), float(low + 2**pixels.bits - 1))
    if pixels.values.ndim == 3:
        return grey_levels(path, luma(pixels.values), *ends)
    values, ends = _apply_modality(path, pixels.values, ends, elements, frame)
    levels = _apply_voi(path, values, elements, frame)
    if levels is None:
        levels = grey_levels(path, values, *ends)
    return (
        255 - levels if photometric == "MONOCHROME1" or text(elements, "PresentationLUTShape") == "INVERSE" else levels
    )


def _apply_modality(
    path: str, values: np.ndarray, ends: tuple[float, float], elements: Dataset, frame: int
) -> tuple[np.ndarray, tuple[float, float]]:
    """The values in the units of the machine, and the least and greatest that they can be."""
    if tables := items(elements, "ModalityLUTSequence"):
        if table := Table.read(tables[0]):
            return table(values), (0, table.white)
        warn_once(path, "its ModalityLUTSequence cannot be used, it is ignored")
    for group in functional_groups(elements, "PixelValueTransformationSequence", frame):
        slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
        if slope and intercept is not None:
            low, high = sorted(end * slope + intercept for end in ends)
            return values * slope + intercept, (low, high)
        if "RescaleSlope" in group or "RescaleIntercept" in group:
            warn_once(path, "its RescaleSlope and RescaleIntercept cannot be used, they are ignored")
    return values, ends


def _apply_voi(path: str, values: np.ndarray, elements: Dataset, frame: int) -> np.ndarray | None:
    """The grey levels that a table or window of the header makes of the values; None where there is none to use."""
    if tables := items(elements, "VOILUTSequence"):
        for table in filter(None, map(Table.read, tables)):
            mapped = table(values)
            if mapped.min() < mapped.max():
                return grey_levels(path, mapped, 0, table.white)
        warn_once(path, "its VOILUTSequence cannot be used, it is ignored")
    for group in functional_groups(elements, "FrameVOILUTSequence", frame):
        windows = list(zip(numbers(group, "WindowCenter"), numbers(group, "WindowWidth"), strict=False))
        for centre, width in windows:
            if math.isfinite(centre) and math.isfinite(width) and width > 0:
                levels = _apply_window(values, centre, width, _function(path, group))
                if levels.min() < levels.max():
                    return grey_levels(path, levels)
        if "WindowCenter" in group or "WindowWidth" in group:
            warn_once(path, "its WindowCenter and WindowWidth cannot be used, they are ignored")
    return None


def _function(path: str, group: Dataset) -> str:
    name = text(group, "VOILUTFunction") or "LINEAR"
    if name in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return name
    warn_once(path, "its VOILUTFunction is unknown, LINEAR is assumed")
    return "LINEAR"


def _apply_window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    values = values.astype(np.float64)
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (values - centre) / width))
    if function != "LINEAR_EXACT" and width >= 1:  # LINEAR, which is not defined for a width below 1
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return np.where(values > centre, 255.0, 0.0)
    return np.clip(((values - centre) / width + 0.5) * 255, 0, 255)
