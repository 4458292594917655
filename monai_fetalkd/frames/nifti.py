"""NIfTI-1 and NIfTI-2, plain and compressed; the header is read by nibabel."""

from __future__ import annotations

import gzip
from typing import BinaryIO, cast

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.lib.recfunctions import structured_to_unstructured

from .frame import FrameError
from .guard import guarded
from .volumes import VolumeSource, read_voxels

__all__ = ["open_nifti"]


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
        if stream.read(2) == b"\x1f\x8b":
            stream.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
        stream.seek(0)
        version_2 = stream.read(4) in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # the size of its header, 540
        stream.seek(0)
        header = (Nifti2Header if version_2 else Nifti1Header).from_fileobj(stream)
        if not header["magic"].item().startswith(b"n+"):
            raise FrameError(path, "it is half of a NIfTI pair: convert it to one .nii file")
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        if len(shape) < 2 or min(shape) < 1:
            raise FrameError(path, f"it holds no frame, its size is {shape}")
        if dtype.kind not in "iufV":
            raise FrameError(path, f"voxels of type {dtype} are no grey levels")
        oriented = header["sform_code"] > 0 or header["qform_code"] > 0
        to_lps = np.diag([-1, -1, 1])
        directions = to_lps @ header.get_best_affine()[:3, :3] if oriented else np.eye(3)
        slope, intercept = header.get_slope_inter()
        offset = max(int(header.get_data_offset()), header.single_vox_offset)  # 0 is written for this, too

    def load() -> np.ndarray:
        stream.seek(offset)
        voxels = read_voxels(path, stream.read, shape, dtype)
        return structured_to_unstructured(voxels)[..., :3] if dtype.names else voxels

    return VolumeSource(
        path, shape, bool(dtype.names), directions, load, 1.0 if slope is None else slope, intercept or 0.0
    )
