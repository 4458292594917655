"""Overlays as a film: MP4 with every frame, GIF with a choice of them."""

from __future__ import annotations

import errno
import os
import secrets
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from monai_fetalkd.utils.files import told_if_unwritten, written_whole

from .video import import_opencv

__all__ = ["Movie", "open_movie"]

_LONGEST_GIF = 240  # frames
_WIDEST_GIF = 480  # pixels
_SHORTEST = 20  # milliseconds: viewers show a frame of less for longer
_LONGEST_PAUSE = 10.0  # seconds
_FPS = 25.0  # where the source does not tell


class Movie(Protocol):
    """A film that is being made."""

    def add(self, picture: Image.Image, number: int, time_ms: float | None = None) -> None:
        """Add the picture of the frame of this number, with its time where the source tells; both grow."""

    def close(self) -> None:
        """Write the film; without a frame there is none.

        Raises:
            OSError: when it cannot be written.
        """


def open_movie(path: str | os.PathLike[str], fps: float | None = None) -> Movie:
    """Begin a film.

    Args:
        path: the file. ``.mp4`` is MPEG-4 video, through OpenCV: all frames, a missing one shown as the one before it,
            so that it runs as long as the source did by its times, or by its numbers where it has none; pauses longer
            than ten seconds are cut. ``.gif`` is reduced to 480 pixels and 240 frames.
        fps: frames a second of the source; 25 where it does not tell.

    Returns:
        The film, which the first frame gives its size.

    Raises:
        ValueError: when the name ends otherwise, or OpenCV is needed and not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".gif":
        return _Gif(Path(path), fps or _FPS)
    if suffix == ".mp4":
        return _Mp4(Path(path), fps or _FPS)
    raise ValueError(f"An overlay is a .mp4 or .gif file, not '{os.fspath(path)}'.")


class _Gif:
    """Holds the frames, every n-th of them; when they become too many, every second goes and n doubles."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._stride = 1
        self._next = 0
        self._pictures: list[tuple[int, float, Image.Image]] = []  # with number and time

    def add(self, picture: Image.Image, number: int, time_ms: float | None = None) -> None:
        time = 1000 * number / self._fps if time_ms is None else time_ms
        if number < self._next or (self._pictures and time - self._pictures[-1][1] < _SHORTEST):
            return
        if self._pictures:
            picture = ImageOps.pad(picture, self._pictures[0][2].size)
        else:
            picture.thumbnail((_WIDEST_GIF, _WIDEST_GIF))
        self._pictures.append((number, time, picture.quantize(64)))
        if len(self._pictures) >= _LONGEST_GIF:
            self._pictures = self._pictures[::2]
            self._stride *= 2
        self._next = self._pictures[-1][0] + self._stride

    def close(self) -> None:
        if not self._pictures:
            return
        _, times, pictures = zip(*self._pictures, strict=True)
        last = times[-1] - times[-2] if len(times) > 1 else 1000 / self._fps
        # a GIF counts in hundredths of a second; rounding the times and not the durations keeps the film in step
        ticks = np.rint(np.array([*times, times[-1] + last]) / 10)
        durations = (10 * np.diff(ticks)).astype(int).tolist()
        with told_if_unwritten(self._path), written_whole(self._path) as temporary:
            pictures[0].save(
                temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0
            )


class _Mp4:
    def __init__(self, path: Path, fps: float) -> None:
        self._cv2 = import_opencv()
        self._path, self._fps = path, fps
        # a name of its own, with the suffix that tells OpenCV the format
        self._part = path.with_name(f"{path.stem}.part-{secrets.token_hex(8)}{path.suffix}")
        weakref.finalize(self, self._part.unlink, missing_ok=True)  # where an error ends the stream before the film
        self._writer: Any = None
        self._size = (0, 0)
        self._picture = np.empty(0, np.uint8)
        self._last = -1  # place of the last frame in the film
        self._cut = 0  # frames that pauses have lost
        self._count = 0

    def add(self, picture: Image.Image, number: int, time_ms: float | None = None) -> None:
        place = number if time_ms is None else round(time_ms * self._fps / 1000)
        place = max(self._last + 1, place - self._cut)
        too_many = place - self._last - 1 - round(_LONGEST_PAUSE * self._fps)
        if too_many > 0:
            self._cut += too_many
            place -= too_many
        if self._writer is None:
            self._size = picture.width // 2 * 2, picture.height // 2 * 2  # the codec takes even sizes only
            self._path.parent.mkdir(parents=True, exist_ok=True)
            code = self._cv2.VideoWriter_fourcc(*"mp4v")
            writer = self._cv2.VideoWriter(str(self._part), code, self._fps, self._size)
            if not writer.isOpened():
                raise ValueError(f"The overlay '{self._path}' cannot be written: OpenCV has no encoder for it.")
            self._writer = writer
        else:
            for _ in range(self._last + 1, place):
                self._write()
        fitted = picture if picture.size == self._size else ImageOps.pad(picture, self._size)
        self._picture = np.ascontiguousarray(np.asarray(fitted)[..., ::-1])
        self._write()
        self._last = place

    def close(self) -> None:
        if self._writer is None:
            return
        self._writer.release()
        with told_if_unwritten(self._path), written_whole(self._path) as temporary:
            if self._count_written() < self._count:
                self._part.unlink(missing_ok=True)
                raise OSError(errno.ENOSPC, f"it is incomplete, as on a full disk, after {self._count} frames")
            os.replace(self._part, temporary)

    def _write(self) -> None:
        self._writer.write(self._picture)
        self._count += 1

    def _count_written(self) -> int:
        """OpenCV does not tell when the disk is full: what it has written tells."""
        capture = self._cv2.VideoCapture(str(self._part))
        count = int(capture.get(self._cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        return count
