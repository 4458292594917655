"""What NIfTI and MetaImage have in common: voxels in patient space, shown as a pile of frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from .frame import MAX_BYTES, Frame, FrameError, check_size
from .guard import guarded
from .levels import grey_levels, luma, natural_range

__all__ = ["VolumeSource", "read_voxels"]


class VolumeSource:
    """The frames of a volume, along all its axes but the first two.

    A frame lies in the plane of the first two axes and is turned the way radiology shows it: towards the patient's left
    or back to the right, towards the back or feet downwards. For the ``(x, y)`` of ITK with its identity orientation
    that is ``pixels[y, x]``, so a picture saved as a volume comes back upright.

    Such files do not tell how many bits a grey level has. So the values of the whole file decide, see
    ``natural_range``; hence its voxels are all read for the first frame.

    Args:
        path: the file, for errors.
        shape: size along each axis, the first running fastest; two at least.
        colours: whether a voxel is red, green and blue.
        directions: (3, 3); column ``i`` points from voxel to voxel along axis ``i``, in left-posterior-superior space.
        load: reads the voxels, as an array of ``shape``, or of ``(*shape, 3)`` with colours.
        slope: a voxel's value is ``stored * slope + intercept``.
        intercept: see ``slope``.

    Raises:
        FrameError: when the frames are too small or too large.
    """

    def __init__(
        self,
        path: str,
        shape: tuple[int, ...],
        colours: bool,
        directions: np.ndarray,
        load: Callable[[], np.ndarray],
        slope: float = 1.0,
        intercept: float = 0.0,
    ) -> None:
        check_size(path, shape[1], shape[0])
        self._path, self._shape, self._colours = path, shape, colours
        self._directions, self._load = directions, load
        self._slope, self._intercept = slope, intercept

    @property
    def count(self) -> int:
        """Number of frames, from the header."""
        return int(np.prod(self._shape[2:], dtype=np.int64))

    def frame(self, number: int) -> Frame:
        """One frame; the first call reads them all."""
        with guarded(self._path, "its voxels are damaged or cut short"):
            plane = _as_displayed(self._frames[:, :, number], self._directions)
            values = luma(plane) if self._colours else plane
            if (self._slope, self._intercept) != (1.0, 0.0):
                values = values * np.float32(self._slope) + np.float32(self._intercept)
            return Frame(grey_levels(self._path, values, *self._range), number)

    @cached_property
    def _frames(self) -> np.ndarray:
        voxels = self._load()
        return voxels.reshape(*self._shape[:2], self.count, *voxels.shape[len(self._shape) :], order="F")

    @cached_property
    def _range(self) -> tuple[float, float]:
        ends = np.array([self._frames.min(), self._frames.max()], dtype=np.float64) * self._slope + self._intercept
        fractional = self._frames.dtype.kind == "f" or not float(self._slope).is_integer()
        return natural_range(float(ends.min()), float(ends.max()), fractional)


def _as_displayed(plane: np.ndarray, directions: np.ndarray) -> np.ndarray:
    towards = np.diag([1, 1, -1]) @ directions  # left, posterior, inferior
    world = [int(np.abs(towards[:, axis]).argmax()) for axis in (0, 1)]
    for axis in (0, 1):
        if towards[world[axis], axis] < 0:
            plane = np.flip(plane, axis)
    return plane.swapaxes(0, 1) if world[0] <= world[1] else plane


def read_voxels(path: str, read: Callable[[int], bytes], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Read as many voxels as the header tells, however many more were compressed, and never above ``MAX_BYTES``.

    Args:
        path: the file, for errors.
        read: returns the next bytes of the voxels, decompressed, at most as many as it is asked for.
        shape: size along each axis, the first running fastest.
        dtype: type of a voxel.

    Returns:
        An array of ``shape``.

    Raises:
        FrameError: when they are too many, or fewer than they should be.
    """
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > MAX_BYTES:
        raise FrameError(path, f"its voxels take {size:,} bytes, {MAX_BYTES:,} are the most")
    data = read(size)
    if len(data) < size:
        raise FrameError(path, f"it is cut short: it holds {len(data):,} of {size:,} bytes of voxels")
    return np.frombuffer(data, dtype).reshape(shape, order="F")
