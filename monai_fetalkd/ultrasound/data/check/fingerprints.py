"""What the check remembers of a frame: enough to recognise it again, small enough to keep for every frame."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from monai_fetalkd.ultrasound.frames import FrameError, read_frame
from monai_fetalkd.utils.requirements import require

__all__ = ["Fingerprint", "fingerprint", "read_fingerprints"]

_SIDE = 32  # pixels of the reduced frame, the size that the perceptual hash works on
_FINE, _COARSE = 0.7, 3.0  # pixels of the reduced frame: what is finer is speckle, what is coarser sector and gain
_NOISE = 4.0  # grey levels: contrast below it is not stretched to full scale
_CHUNK = 16  # frames handed to a worker at a time
_MAX_WORKERS = 8


class Fingerprint(NamedTuple):
    """One frame, reduced.

    Args:
        digest: SHA-256 of the shape and of the grey levels as uint8: equal for the same pixels in any lossless file.
        bits: perceptual hash, bool (64,).
        pattern: local contrast, float32 (1024,), of zero mean and unit norm (all zero for a flat frame): the product
            of two is the correlation of two frames.
    """

    digest: bytes
    bits: np.ndarray
    pattern: np.ndarray


def fingerprint(pixels: np.ndarray) -> Fingerprint:
    r"""Digest, perceptual hash and pattern of a frame.

    The frame is reduced to 32 x 32 by areas. The hash is the signs of its lowest cosine frequencies. The pattern is its
    contrast, normalised in a neighbourhood: :math:`(G_f x - G_c x) / (\sqrt{G_c (x - G_c x)^2} + 4)` with Gaussian
    means of 0.7 (:math:`G_f`) and 3 pixels (:math:`G_c`). All frames of a machine share the outline of the sector and a
    dark field with depth, which dominate a correlation of grey levels; the normalisation leaves the anatomy.

    Args:
        pixels: grey levels 0 to 255, [H, W], of any real type.

    Returns:
        The fingerprint, 4 KB.

    Example:
        >>> ramp = np.tile(np.arange(0.0, 256.0, 4.0), (64, 1))
        >>> same, brighter = fingerprint(ramp), fingerprint(np.clip(ramp + 20, 0, 255))
        >>> same.digest == brighter.digest, bool(same.pattern @ brighter.pattern > 0.9)
        (False, True)

    References:
        Zauner, C. Implementation and benchmarking of perceptual image hash functions. Master's thesis, Upper Austria
        University of Applied Sciences, Hagenberg, 2010 (the DCT hash).

        Jarrett, K., Kavukcuoglu, K., Ranzato, M., LeCun, Y. What is the best multi-stage architecture for object
        recognition? ICCV 2009, 2146-2153 (local contrast normalisation).
    """
    import imagehash  # an extra

    grey = np.ascontiguousarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    digest = hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).digest()
    reduced = Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    bits = imagehash.phash(reduced).hash.ravel()

    level = np.asarray(reduced, dtype=np.float32)
    mean = ndimage.gaussian_filter(level, _COARSE)
    deviation = np.sqrt(ndimage.gaussian_filter((level - mean) ** 2, _COARSE))
    pattern = ((ndimage.gaussian_filter(level, _FINE) - mean) / (deviation + _NOISE)).ravel()
    pattern -= pattern.mean()
    norm = float(np.linalg.norm(pattern))
    return Fingerprint(digest, bits, pattern / norm if norm > 1e-3 else np.zeros_like(pattern))


def read_fingerprints(
    rows: Sequence[Mapping[str, Any]], workers: int | None = None, progress: bool = True
) -> list[Fingerprint | str]:
    """Read every frame once, in several processes, and keep its fingerprint.

    Args:
        rows: frames with ``image`` (path) and, in a file of several, ``frame`` (number).
        workers: processes that read; by default one a core, 8 at most. 1 reads in this process.
        progress: whether to show a bar on stderr.

    Returns:
        For each row its fingerprint, or a sentence that says why its frame cannot be read.

    Raises:
        ValueError: when there are no workers.
        ImportError: when the package of the perceptual hash is not installed.
    """
    require("To find duplicates (to do without: --no_duplicates)", "imagehash")
    if workers is None:
        workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}.")
    with _mapped(rows, workers) as results:
        return list(tqdm(results, total=len(rows), desc="frames", unit="frame", disable=not progress))


@contextmanager
def _mapped(rows: Sequence[Mapping[str, Any]], workers: int) -> Iterator[Iterator[Fingerprint | str]]:
    files = [(row["image"], row.get("frame")) for row in rows]
    if workers == 1:
        yield map(_read, files)
        return
    pool = ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_the_parent)
    try:
        yield pool.map(_read, files, chunksize=_CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)


def _read(file: tuple[str, int | None]) -> Fingerprint | str:
    try:
        return fingerprint(read_frame(*file).pixels)
    except (FrameError, FileNotFoundError) as error:
        return str(error)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
