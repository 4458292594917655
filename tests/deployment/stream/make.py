"""Frames with one bright half, and what recognises them without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from monai_fetalkd.deployment.stream import Answer, Arrival
from monai_fetalkd.ultrasound.frames import Frame, FrameError

NAMES = ("left", "right")
DAMAGED = "damaged"


def half(side: str, seed: int = 0, shape: tuple[int, int] = (40, 56)) -> np.ndarray:
    """Speckle with a bright half: (height, width) of uint8."""
    pixels = np.random.default_rng(seed).integers(0, 40, shape).astype(np.uint8)
    middle = shape[1] // 2
    pixels[:, slice(middle) if side == "left" else slice(middle, None)] += 200
    return pixels


def arrivals(sides: Sequence[str], interval: float | None = 40.0) -> Iterator[Arrival]:
    """A source of such frames, some of which may be ``DAMAGED``."""
    for number, side in enumerate(sides):

        def decode(number: int = number, side: str = side) -> Frame:
            if side == DAMAGED:
                raise FrameError("loop", f"its frame {number} is damaged or cut short")
            return Frame(half(side, number).astype(np.float32))

        yield Arrival(number, None if interval is None else interval * number, decode)


class Halves:
    """The share of the brightness in each half."""

    class_names = NAMES

    def __call__(self, pixels: np.ndarray, region: tuple[int, int, int, int] | None = None) -> np.ndarray:
        middle = pixels.shape[1] // 2
        sums = np.array([pixels[:, :middle].sum(), pixels[:, middle:].sum()], dtype=np.float64)
        return sums / sums.sum()


def answer(
    number: int, plane: str | None, single: tuple[float, ...], smoothed: tuple[float, ...] | None = None, **fields
) -> Answer:
    """An answer as a stream gives it, with a frame that tells its number."""
    smoothed = smoothed or single
    content = {
        "time_ms": 40.0 * number,
        "probability": max(smoothed),
        "probabilities": dict(zip(NAMES, single, strict=True)),
        "smoothed": dict(zip(NAMES, smoothed, strict=True)),
        "ms": 1.0,
        "dropped": 0,
        "frame": Frame(half("left", number).astype(np.float32)),
        **fields,
    }
    return Answer(number=number, plane=plane, **content)


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    """The bytes of a PNG or JPEG file."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format=kind, **options)
    return stream.getvalue()
