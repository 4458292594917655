"""From the values that a file stores to grey levels from 0 to 255."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .frame import FrameError

__all__ = ["grey_levels", "luma", "natural_range"]


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
        A new array of float32, clipped to 0 to 255.

    Raises:
        FrameError: when all pixels have the same value.
    """
    darkest, brightest = values.min(), values.max()
    if darkest == brightest:
        raise FrameError(path, "it holds one grey level only")
    if not (np.isfinite(darkest) and np.isfinite(brightest)):
        raise FrameError(path, "it holds values that are not finite numbers")
    levels = values.astype(np.float32)
    if (low, high) != (0, 255):
        levels -= low
        levels *= 255 / (high - low)
    if darkest < low or brightest > high:
        np.clip(levels, 0, 255, out=levels)
    return levels


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
