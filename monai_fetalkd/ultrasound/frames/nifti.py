"""NIfTI-1 and NIfTI-2, plain and compressed; the header is read by nibabel."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import BinaryIO, cast

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.lib.recfunctions import structured_to_unstructured

from .frame import MAX_BYTES, FrameError, inflated_limit
from .guard import guarded, warn_once
from .kinds import HEAD, sniff
from .volumes import Layout, VolumeSource, read_voxels

__all__ = ["open_nifti"]

_TIME_UNITS = 0x38
_MILLISECONDS = {8: 1000.0, 16: 1.0, 24: 0.001}


def open_nifti(path: str, stream: BinaryIO) -> VolumeSource:
    """The frames of a NIfTI file.

    Args:
        path: the file, for errors.
        stream: the same file, open at its start.

    Returns:
        Its frames. A file that does not tell its orientation is taken as it is stored, ``pixels[y, x]``.

    Raises:
        FrameError: when the header is damaged, or the file not a single one (``.hdr`` and ``.img``).
    """
    with guarded(path, "its NIfTI header is damaged or cut short"):
        file = _unpacked(path, stream)
        version_2 = file.read(4) in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # the size of its header, 540
        file.seek(0)
        header = (Nifti2Header if version_2 else Nifti1Header).from_fileobj(file)
        if not header["magic"].item().startswith(b"n+"):
            raise FrameError(path, "it is half of a NIfTI pair: convert it to one .nii file")
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        if len(shape) < 2 or min(shape) < 1:
            raise FrameError(path, f"it holds no frame, its size is {shape}")
        if dtype.kind not in "iufV":
            raise FrameError(path, f"voxels of type {dtype} are no grey levels")
        slope, intercept = _scaling(path, header)
        limit = MAX_BYTES if file is stream else inflated_limit(os.fstat(stream.fileno()).st_size)
        offset = max(int(header.get_data_offset()), header.single_vox_offset)  # 0 is written for this, too
        layout = Layout(
            shape, dtype, 3 if dtype.names else 1, _directions(path, header), _spacing(header), slope, intercept
        )

    def load(stream: BinaryIO) -> np.ndarray:
        file.seek(offset)
        voxels = read_voxels(path, file.read, shape, dtype, limit)
        return structured_to_unstructured(voxels)[..., :3] if dtype.names else voxels

    return VolumeSource(path, layout, lambda: nullcontext(stream), load, _clock(header, shape))


def _unpacked(path: str, stream: BinaryIO) -> BinaryIO:
    """The file, decompressed as it is read."""
    compressed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    if not compressed:
        return stream
    file = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    kind = sniff(file.read(HEAD))
    if kind != "NIfTI":
        raise FrameError(
            path, f"it is compressed (gzip) and holds {kind or 'something else'}, no NIfTI: decompress it first"
        )
    file.seek(0)
    return file


def _scaling(path: str, header: Nifti1Header) -> tuple[float, float]:
    with suppress(HeaderDataError):
        slope, intercept = header.get_slope_inter()
        return (1.0 if slope is None else float(slope)), float(intercept or 0.0)
    warn_once(path, "its scl_slope and scl_inter cannot be used, they are ignored")
    return 1.0, 0.0


def _directions(path: str, header: Nifti1Header) -> tuple[tuple[float, ...], ...]:
    with suppress(HeaderDataError, ValueError):
        if header["sform_code"] > 0 or header["qform_code"] > 0:
            affine = header.get_best_affine()[:3, :3]
            if np.isfinite(affine).all():
                return tuple(map(tuple, (np.diag([-1, -1, 1]) @ affine).tolist()))
        return Layout.directions
    warn_once(path, "its qform cannot be used, it is ignored")
    return Layout.directions


def _spacing(header: Nifti1Header) -> tuple[float, float]:
    width, height = (abs(float(size)) for size in header["pixdim"][1:3])
    return (width, height) if 0 < width < np.inf and 0 < height < np.inf else (1.0, 1.0)


def _clock(header: Nifti1Header, shape: tuple[int, ...]) -> Callable[[int], float | None]:
    """Tells the time along the fourth axis; the third is none."""
    milliseconds = _MILLISECONDS.get(int(header["xyzt_units"]) & _TIME_UNITS)
    step = float(header["pixdim"][4])
    if len(shape) != 4 or milliseconds is None or not 0 < step < np.inf:
        return lambda number: None
    return lambda number: number // shape[2] * step * milliseconds
