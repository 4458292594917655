"""Any file as frames: the functions that the rest of the package reads with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from monai_fetalkd.utils.requirements import pip_install

from .frame import BlankFrameError, Frame, FrameError, FrameSource
from .guard import opened
from .kinds import HEAD, SUFFIXES, UNKNOWN, check_name, sniff, unsupported
from .pictures import PictureSource

__all__ = ["count_frames", "find_frames", "iterate_frames", "open_frames", "read_frame"]


def read_frame(path: str | os.PathLike[str], number: int | None = None) -> Frame:
    """Read one frame of a picture, a DICOM file or a volume.

    PNG, JPEG, BMP, TIFF and GIF are read by Pillow, DICOM by pydicom, NIfTI with the help of nibabel, MetaImage by this
    package. Content decides which it is; a name may lack its suffix, but not bear the wrong one.

    Args:
        path: the file.
        number: index of the frame; None where the file holds one only.

    Returns:
        The frame as it is displayed.

    Raises:
        FileNotFoundError: when there is no such file.
        FrameError: for any other reason why there is no frame to return.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 100).save(f"{folder}/a.png")
        ...     pixels = read_frame(f"{folder}/a.png").pixels
        >>> pixels.shape, pixels.dtype, round(float(pixels.max()), 3)
        ((20, 24), dtype('float32'), 186.381)
    """
    with open_frames(path) as source:
        if number is None and source.count > 1:
            raise FrameError(os.fspath(path), f"it holds {source.count} frames: name one by its number (key 'frame')")
        number = number or 0
        if not 0 <= number < source.count:
            raise FrameError(os.fspath(path), f"it has no frame {number}, its frames are 0 to {source.count - 1}")
        return source.frame(number)


def iterate_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """The frames of a file in turn, each decoded when it is asked for.

    Of a picture or a DICOM file one frame at a time is in memory, of a GIF or a volume they all are. A frame of one
    grey level is passed over. A frame that is damaged ends the iteration; ``read_frame`` still reads those after it.

    Args:
        path: the file.

    Yields:
        Its frames, with number and time.

    Raises:
        FileNotFoundError: when there is no such file.
        FrameError: when the file, or the frame that comes next, cannot be read.
    """
    with open_frames(path) as source:
        found = False
        for number in range(source.count):
            try:
                frame = source.frame(number)
            except BlankFrameError:
                if found or number < source.count - 1:
                    continue
                raise
            found = True
            yield frame


def count_frames(path: str | os.PathLike[str]) -> int:
    """Number of frames that the header of a file tells of; no pixel is decoded.

    Args:
        path: the file.

    Returns:
        The number, 1 for a single picture.

    Raises:
        FileNotFoundError: when there is no such file.
        FrameError: when it is no file of frames, or its header is damaged.
    """
    with open_frames(path) as source:
        return source.count


def find_frames(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All frames of a folder and the folders in it.

    Listed is every file whose suffix is that of a picture, of DICOM or of a volume, and every DICOM, PNG, JPEG, TIFF or
    GIF file whatever its name is, such as the ``IM_0001`` of an export. Hidden files and the index of a DICOM medium
    (``DICOMDIR``) are not. A file that cannot be read is listed all the same, so that whoever reads it names it.

    Args:
        folder: the folder.

    Returns:
        ``{"image": path}`` for the only frame of a file, ``{"image": path, "frame": number}`` for each of several; in
        the order of their paths.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder '{os.fspath(folder)}'.")
    rows: list[dict[str, Any]] = []
    for path in sorted(path for path in Path(folder).rglob("*") if _is_candidate(path, Path(folder))):
        try:
            count = count_frames(path)
        except FrameError:
            count = 1
        rows += [{"image": str(path)} if count == 1 else {"image": str(path), "frame": n} for n in range(count)]
    return rows


# the other kinds begin with two letters, a word or as any gzip file does: too little to tell them by
_KNOWN_BY_CONTENT = {"DICOM", "PNG", "JPEG", "TIFF", "GIF"}


def _is_candidate(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    if hidden or path.name == "DICOMDIR" or not path.is_file():
        return False
    if path.name.lower().endswith(tuple(SUFFIXES)):
        return True
    with path.open("rb") as stream:
        return sniff(stream.read(HEAD)) in _KNOWN_BY_CONTENT


@contextmanager
def open_frames(path: str | os.PathLike[str]) -> Iterator[FrameSource]:
    """Open a file for those who want several of its frames, in any order, and go on after a damaged one.

    Args:
        path: the file.

    Yields:
        The open file, which knows how many frames it holds and decodes each when it is asked for.

    Raises:
        FileNotFoundError: when there is no such file.
        FrameError: when it is no file of frames, or its header is damaged.
    """
    name = os.fspath(path)
    with opened(name) as stream:
        head = stream.read(HEAD)
        kind = sniff(head)
        if kind is None:
            raise FrameError(name, unsupported(head) or UNKNOWN)
        check_name(name, kind)
        stream.seek(0)
        yield _source(name, stream, kind)


def _source(path: str, stream: BinaryIO, kind: str) -> FrameSource:
    # what only some files need is imported when the first of them is met
    try:
        if kind == "DICOM":
            from .dicom import DicomSource

            return DicomSource(path, stream)
        if kind == "NIfTI":
            from .nifti import open_nifti

            return open_nifti(path, stream)
    except ModuleNotFoundError as error:
        raise FrameError(path, f"to read {kind}, run `{pip_install(error.name or kind)}`") from None
    if kind == "MetaImage":
        from .metaimage import open_metaimage

        return open_metaimage(path, stream)
    return PictureSource(path, stream, kind)
