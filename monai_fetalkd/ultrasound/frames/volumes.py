"""What NIfTI and MetaImage have in common: voxels in patient space, shown as a pile of frames."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import numpy as np

from .frame import MAX_BYTES, Frame, FrameError, check_size
from .guard import guarded
from .levels import finite_range, grey_levels, luma, natural_range, with_square_pixels
from .recent import Decoded, recall

__all__ = ["Layout", "VolumeSource", "read_voxels"]

_PART = 2**20


@dataclass(frozen=True)
class Layout:
    """What the header of a volume tells.

    Args:
        shape: size along each axis, the first running fastest; two at least.
        dtype: type of a voxel.
        channels: values of a voxel, 1 or 3 for red, green and blue.
        directions: the three rows of a matrix; column ``i`` points from voxel to voxel along axis ``i``, in
            left-posterior-superior space.
        spacing: size of a voxel along the first two axes.
        slope: a voxel's value is ``stored * slope + intercept``.
        intercept: see ``slope``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    channels: int = 1
    directions: tuple[tuple[float, ...], ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    spacing: tuple[float, float] = (1.0, 1.0)
    slope: float = 1.0
    intercept: float = 0.0


class VolumeSource:
    """The frames of a volume, along all its axes but the first two.

    A frame lies in the plane of the first two axes and is turned the way radiology shows it: towards the patient's left
    or back to the right, towards the back or feet downwards. For the ``(x, y)`` of ITK with its identity orientation
    that is ``pixels[y, x]``, so a picture saved as a volume comes back upright.

    Such files do not tell how many bits a grey level has. So the values of the whole file decide, see
    ``natural_range``; hence its voxels are all read for the first frame, and those of the last file are kept. Voxels
    that are not square in the plane are made so.

    Args:
        path: the file, for errors.
        layout: what its header tells.
        voxel_file: opens the file that holds the voxels, for as long as they are read.
        load: reads the voxels from it, as an array of the layout's ``shape``, or of ``(*shape, 3)`` with colours.
        time: milliseconds since the first frame, of a frame by its number, where the file tells.

    Raises:
        FrameError: when the frames are too small or too large.
    """

    def __init__(
        self,
        path: str,
        layout: Layout,
        voxel_file: Callable[[], AbstractContextManager[BinaryIO]],
        load: Callable[[BinaryIO], np.ndarray],
        time: Callable[[int], float | None],
    ) -> None:
        check_size(path, layout.shape[1], layout.shape[0])
        self._path, self._layout, self._time = path, layout, time
        self._voxel_file, self._load = voxel_file, load

    @property
    def count(self) -> int:
        """Number of frames, from the header."""
        return int(np.prod(self._layout.shape[2:], dtype=np.int64))

    def frame(self, number: int) -> Frame:
        """One frame; the first call reads them all."""
        layout = self._layout
        with guarded(self._path, "its voxels are damaged or cut short"):
            frames, ends = self._volume.pixels, self._volume.details
            plane, spacing = _as_displayed(frames[:, :, number], np.array(layout.directions), layout.spacing)
            values = luma(plane) if layout.channels == 3 else plane
            if (layout.slope, layout.intercept) != (1.0, 0.0):
                values = values * np.float32(layout.slope) + np.float32(layout.intercept)
            levels = grey_levels(self._path, values, *ends)
            levels, _ = with_square_pixels(levels, spacing[1] / spacing[0])
            return Frame(levels, number, self.time(number))

    def time(self, number: int) -> float | None:
        """Milliseconds from the first frame to this one, where the header tells."""
        return self._time(number)

    @cached_property
    def _volume(self) -> Decoded[tuple[float, float]]:
        with self._voxel_file() as stream:
            return recall(stream, self._layout, lambda: self._decode(stream))

    def _decode(self, stream: BinaryIO) -> Decoded[tuple[float, float]]:
        layout = self._layout
        voxels = self._load(stream)
        frames = voxels.reshape(*layout.shape[:2], self.count, *voxels.shape[len(layout.shape) :], order="F")
        stored = [frames.min(), frames.max()]
        if not np.isfinite(stored).all():
            stored = [end for n in range(self.count) for end in finite_range(frames[:, :, n]) or ()] or [0, 1]
        ends = np.array([min(stored), max(stored)], dtype=np.float64) * layout.slope + layout.intercept
        fractional = frames.dtype.kind == "f" or not float(layout.slope).is_integer()
        return Decoded(frames, natural_range(float(ends.min()), float(ends.max()), fractional))


def _as_displayed(
    plane: np.ndarray, directions: np.ndarray, spacing: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """A plane as (rows, columns), and the width and height of its pixels."""
    towards = np.diag([1, 1, -1]) @ directions  # left, posterior, inferior
    world = [int(np.abs(towards[:, axis]).argmax()) for axis in (0, 1)]
    for axis in (0, 1):
        if towards[world[axis], axis] < 0:
            plane = np.flip(plane, axis)
    return (plane.swapaxes(0, 1), spacing) if world[0] <= world[1] else (plane, spacing[::-1])


def read_voxels(
    path: str, read: Callable[[int], bytes], shape: tuple[int, ...], dtype: np.dtype, limit: int = MAX_BYTES
) -> np.ndarray:
    """Read as many voxels as the header tells, however many more were compressed.

    Args:
        path: the file, for errors.
        read: returns the next bytes of the voxels, decompressed, at most as many as it is asked for.
        shape: size along each axis, the first running fastest.
        dtype: type of a voxel.
        limit: how many bytes they may take.

    Returns:
        An array of ``shape``.

    Raises:
        FrameError: when they are too many, or fewer than they should be.
    """
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > limit:
        raise FrameError(path, f"its voxels take {size:,} bytes, {limit:,} are the most")
    voxels = np.empty(size, np.uint8)  # takes memory as it is filled, and only once
    filled = 0
    while filled < size and (part := read(min(_PART, size - filled))):
        voxels[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    if filled < size:
        raise FrameError(path, f"it is cut short: it holds {filled:,} of {size:,} bytes of voxels")
    return voxels.view(dtype).reshape(shape, order="F")
