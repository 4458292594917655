"""Resizing without distortion, in numpy: what ``transforms.Letterboxd`` and MONAI's area resize do in torch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse

__all__ = ["from_letterbox", "letterbox"]


def letterbox(pixels: np.ndarray, size: tuple[int, int], smooth: bool = True) -> np.ndarray:
    """Resize a frame to fit into a size, as high to wide as it was, with black around.

    A larger frame is shrunk by averaging over the area of each new pixel. The result equals that of
    ``monai_fetalkd.ultrasound.transforms.Letterboxd``, or without ``smooth`` that of MONAI's
    ``Resized(size_mode="longest", mode="area")`` and ``SpatialPadd``, to float32's rounding.

    Args:
        pixels: grey levels of shape ``(H, W)``.
        size: height and width of the result.
        smooth: whether a smaller frame is enlarged linearly; otherwise its pixels are repeated.

    Returns:
        The frame, float32 of shape ``size``.

    Example:
        >>> letterbox(np.array([[0.0, 2.0, 4.0, 6.0], [0.0, 2.0, 4.0, 6.0]]), (2, 2))
        array([[1., 5.],
               [0., 0.]], dtype=float32)
    """
    scale, (top, left, height, width) = _place(pixels.shape, size)
    weights = _linear if smooth and scale > 1 else _area
    narrow = weights(pixels.shape[1], width) @ np.ascontiguousarray((weights(pixels.shape[0], height) @ pixels).T)
    frame = np.zeros(size, dtype=np.float32)
    frame[top : top + height, left : left + width] = narrow.T
    return frame


def from_letterbox(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bring maps of a letterboxed frame back to the size of the frame, interpolated linearly.

    Args:
        values: ``[C, h, w]`` over the whole letterbox, such as the logits of a network.
        shape: height and width of the frame.

    Returns:
        float32 ``[C, *shape]``.

    Example:
        >>> inside = letterbox(np.ones((20, 40)), (8, 8))
        >>> from_letterbox(inside[None], (20, 40)).min()
        np.float32(1.0)
    """
    _, (top, left, height, width) = _place(shape, values.shape[1:])
    inside = np.asarray(values[:, top : top + height, left : left + width], dtype=np.float32)
    tall, wide = (_linear if new > old else _area for new, old in zip(shape, (height, width), strict=True))
    return np.stack([(wide(width, shape[1]) @ (tall(height, shape[0]) @ channel).T).T for channel in inside])


def _place(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[float, tuple[int, int, int, int]]:
    """How much a frame is scaled to fit, and its top, left, height and width there."""
    scale = min(new / old for new, old in zip(size, shape, strict=True))
    height, width = (max(1, round(scale * old)) for old in shape)
    return scale, ((size[0] - height) // 2, (size[1] - width) // 2, height, width)


# A sparse matrix a side: a dense one takes seven times as long, and BLAS would take more threads than it was given.
# The frames of a cine share theirs; a sector that moves by a pixel needs new ones.
@lru_cache(maxsize=64)
def _area(old: int, new: int) -> sparse.csr_array:
    """Averages over all pixels that a new one touches, as adaptive average pooling does."""
    places = np.arange(new)
    starts, stops = places * old // new, -(-(places + 1) * old // new)
    lengths = stops - starts
    ends = np.cumsum(lengths)
    columns = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
    values = np.repeat(1 / lengths, lengths).astype(np.float32)
    return sparse.csr_array((values, columns, np.append(0, ends)), shape=(new, old))


@lru_cache(maxsize=64)
def _linear(old: int, new: int) -> sparse.csr_array:
    """Interpolates between the centres of pixels, whose places are rounded to float32 as torch rounds them."""
    places = np.float32(old) / np.float32(new) * (np.arange(new, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    places = np.maximum(places, 0)
    lower = places.astype(np.intp)
    columns = np.stack([lower, np.minimum(lower + 1, old - 1)], axis=1).ravel()
    values = np.stack([1 - (places - lower), places - lower], axis=1).astype(np.float32).ravel()
    return sparse.csr_array((values, columns, np.arange(0, 2 * new + 1, 2)), shape=(new, old))
