"""From the values that a file stores to grey levels from 0 to 255."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .frame import MAX_PIXELS, BlankFrameError, FrameError

__all__ = ["finite_range", "grey_levels", "luma", "natural_range", "with_square_pixels"]


def luma(colours: np.ndarray) -> np.ndarray:
    """The brightness of colours, ``0.299 R + 0.587 G + 0.114 B``.

    Args:
        colours: array of shape (height, width, 3). Of uint8 it is rounded the way Pillow does, so that a frame is the
            same to the last bit whether it was saved as a picture or as DICOM.

    Returns:
        An array of shape (height, width), uint8 for uint8 and float32 for other types.

    References:
        Recommendation ITU-R BT.601-7, section 2.5.1.
    """
    if colours.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(colours)).convert("L"))
    return colours.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def grey_levels(path: str, values: np.ndarray, low: float = 0, high: float = 255) -> np.ndarray:
    """Stretch ``low`` to black and ``high`` to white.

    Args:
        path: the file, for the error.
        values: array of shape (height, width) of any real type.
        low: the value of level 0.
        high: the value of level 255.

    Returns:
        A new array of float32, clipped to 0 to 255. What is not a number (NaN), as outside of a sector, is black.

    Raises:
        BlankFrameError: when all pixels have the same value.
        FrameError: when none of them is a finite number.
    """
    darkest, brightest = values.min(), values.max()
    if not (np.isfinite(darkest) and np.isfinite(brightest)):
        if finite_range(values) is None:
            raise FrameError(path, "it holds values that are not finite numbers")
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        darkest, brightest = values.min(), values.max()
    if darkest == brightest:
        raise BlankFrameError(path)
    levels = values.astype(np.float32) if values.dtype.itemsize <= 4 else values.astype(np.float64)
    if (low, high) != (0, 255):
        levels = (levels - low) * (255 / (high - low))
    if darkest < low or brightest > high:
        np.clip(levels, 0, 255, out=levels)
    return levels.astype(np.float32, copy=False)


def finite_range(values: np.ndarray) -> tuple[float, float] | None:
    """The least and the greatest of the values that are finite numbers; None where none is."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else None


def with_square_pixels(
    levels: np.ndarray, ratio: float, region: tuple[int, int, int, int] | None = None
) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """Stretch a frame whose pixels are not square, so that anatomy has its proportions.

    Args:
        levels: grey levels of shape (height, width), float32.
        ratio: height of a pixel for its width. One that differs from 1 by less than a hundredth is taken for rounded,
            one beyond 10 for a mistake.
        region: ``(top, left, bottom, right)`` of a part of the frame.

    Returns:
        The frame with its coarser axis stretched, and where the part is in it.

    Example:
        >>> levels, region = with_square_pixels(np.zeros((20, 30), np.float32), 2.0, (5, 0, 20, 30))
        >>> levels.shape, region
        ((40, 30), (10, 0, 40, 30))
    """
    down, across = max(ratio, 1.0), max(1 / ratio, 1.0)
    if not 1.01 <= max(down, across) <= 10 or levels.size * down * across > MAX_PIXELS:
        return levels, region
    height, width = round(levels.shape[0] * down), round(levels.shape[1] * across)
    stretched = Image.fromarray(levels).resize((width, height), Image.Resampling.BILINEAR)
    if region is not None:
        top, left, bottom, right = region
        region = round(top * down), round(left * across), round(bottom * down), round(right * across)
    return np.asarray(stretched), region


def natural_range(darkest: float, brightest: float, fractional: bool) -> tuple[float, float]:
    """The values of black and white in a file that does not tell how many bits it uses.

    Args:
        darkest: the least value in the file.
        brightest: the greatest.
        fractional: whether the values are floating-point numbers.

    Returns:
        0 and 1 for fractions within these, 0 and 255 for other values within those, else the two extremes.

    Example:
        >>> natural_range(0, 200, False), natural_range(0.0, 0.9, True), natural_range(-1024, 3071, False)
        ((0, 255), (0, 1), (-1024, 3071))
    """
    if darkest < 0 or brightest > 255:
        return darkest, brightest
    return (0, 1) if fractional and brightest <= 1 else (0, 255)
