"""From what a user names to frames: a file of any kind, a folder, standard input, a capture device."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from monai_fetalkd.ultrasound.frames import Frame, FrameError, find_frames, read_frame
from monai_fetalkd.ultrasound.frames.frame import FrameSource
from monai_fetalkd.ultrasound.frames.kinds import HEAD, sniff
from monai_fetalkd.ultrasound.frames.reader import open_frames

from .arrivals import Arrival, FrameStream
from .pipes import PIPE_SIZE, iterate_pictures, iterate_raw
from .video import open_video

__all__ = ["open_source"]

_logger = logging.getLogger(__name__)


@contextmanager
def open_source(name: str, fps: float | None = None, raw: tuple[int, int] | None = None) -> Iterator[FrameStream]:
    """Open a source of frames by its name.

    Args:
        name: a file that :func:`monai_fetalkd.ultrasound.frames.read_frame` reads (multi-frame DICOM above all), a
            video, a folder of frames (in natural order: ``frame2.png`` before ``frame10.png``), ``-`` for standard
            input, or the number of a capture device.
        fps: frames a second, whatever the source tells; None to believe it.
        raw: width and height of the frames on standard input, where these are bare grey levels, one byte a pixel, row
            by row; None where they are PNG or JPEG files one behind the other.

    Yields:
        The source, of which standard input and devices are live.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when it is nothing of the above or cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in (10, 2):
        ...         Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)).save(f"{folder}/f{number}.png")
        ...     with open_source(folder, fps=25) as source:
        ...         [(arrival.number, arrival.time, arrival.decode().pixels.shape) for arrival in source]
        [(0, 0.0, (20, 20)), (1, 40.0, (20, 20))]
    """
    if raw is not None and name != "-":
        raise ValueError(f"Bare grey levels (--raw) are read from standard input (-), not from '{name}'.")
    with ExitStack() as stack:
        if name == "-":
            if sys.stdin is None:
                raise ValueError("Standard input is closed: name a file, or send frames (ffmpeg ... | ...).")
            # unbuffered: a reader that waits for more holds no lock then, which would crash Python as it ends
            stream = stack.enter_context(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
            _widen(stream)
            yield FrameStream(iterate_raw(stream, *raw) if raw else iterate_pictures(stream), live=True, fps=fps)
        elif name.isdecimal():
            yield stack.enter_context(open_video(int(name), fps))
        elif Path(name).is_dir():
            rows = find_frames(name)
            if not rows:
                raise ValueError(f"There are no frames in the folder '{name}', such as .png, .jpg or DICOM files.")
            _tell_left_out(name, {row["image"] for row in rows})
            yield FrameStream(_folder(rows, fps), fps=fps)
        elif _is_video(name):
            yield stack.enter_context(open_video(name, fps))
        else:
            file = stack.enter_context(open_frames(name))
            yield FrameStream(_cine(file, fps), fps=fps or _rate(file))


def _tell_left_out(folder: str, frames: set[str]) -> None:
    others = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and str(path) not in frames]
    if others := [path for path in others if not path.name.startswith(".")]:
        _logger.warning("%d other file(s) in '%s' are left out, such as '%s'.", len(others), folder, others[0].name)


def _widen(stream: FileIO) -> None:
    """Let a pipe hold as much as it may without privileges, on Linux: the sender then waits less for a busy reader."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


def _is_video(name: str) -> bool:
    """Whether it is a file, and none of those that are read without OpenCV."""
    if "://" in name:
        raise ValueError(f"A network stream comes through standard input: ffmpeg -i {name} ... | ... -, see --help.")
    if not Path(name).is_file():
        raise FileNotFoundError(f"There is no file, folder or device '{name}'.")
    with open(name, "rb") as stream:
        head = stream.read(HEAD)
    return bool(head) and sniff(head) is None


def _time(number: int, fps: float | None) -> float | None:
    return 1000.0 * number / fps if fps else None


def _cine(file: FrameSource, fps: float | None) -> Iterator[Arrival]:
    for number in range(file.count):
        time = _time(number, fps) if fps else file.time(number)
        yield Arrival(number, time, partial(file.frame, number))


def _rate(file: FrameSource) -> float | None:
    """Frames a second on average."""
    time = file.time(file.count - 1)
    return 1000.0 * (file.count - 1) / time if time else None


def _folder(rows: list[dict[str, Any]], fps: float | None) -> Iterator[Arrival]:
    for number, row in enumerate(sorted(rows, key=_natural)):
        yield Arrival(number, _time(number, fps), partial(_read, row["image"], row.get("frame")))


def _read(path: str, number: int | None) -> Frame:
    try:
        return read_frame(path, number)
    except FileNotFoundError:
        raise FrameError(path, "it is no longer there") from None


def _natural(row: dict[str, Any]) -> list[str | int]:
    """A key that sorts runs of digits by their value; they stand at the odd places."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", row["image"]))]
