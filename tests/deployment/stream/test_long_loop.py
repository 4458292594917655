"""Ten minutes of frames, faster than they can be answered."""

from __future__ import annotations

import os
import time
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from monai_fetalkd.deployment.stream import Arrival, BestFrames, Stream, paced
from monai_fetalkd.ultrasound.frames import Frame
from monai_fetalkd.ultrasound.frames.pictures import PictureSource

from .make import Halves, encoded, half

FRAMES, FPS, SPEED = 18_000, 30, 20
DAMAGED_EVERY = 7


class Busy(Halves):
    """Takes ten frames' time for each, as on a slow core."""

    def __call__(self, pixels, region=None):
        time.sleep(10 / FPS / SPEED)
        return super().__call__(pixels)


def decode(data: bytes) -> Frame:
    return PictureSource("loop", BytesIO(data), "JPEG").frame(0)


def memory() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_minutes_leave_memory_flat_and_the_delay_bounded():
    whole = [encoded(half("left" if number < 50 else "right", number, (240, 320)), "JPEG") for number in range(100)]

    def source():
        for number in range(FRAMES):
            data = whole[number % len(whole)]
            if number % DAMAGED_EVERY == 0:
                data = data[: len(data) // 2]
            yield Arrival(number, 1000 * number / FPS, partial(decode, data))

    stream = Stream(Busy(), paced(source(), SPEED), live=True)
    best = BestFrames()
    start = time.monotonic()
    delays, megabytes = [], []
    for answer in stream:
        best.add(answer)
        delays.append(time.monotonic() - start - answer.number / FPS / SPEED)
        megabytes.append(memory())

    summary = stream.summary
    assert summary.seen == FRAMES
    assert summary.dropped > FRAMES / 2
    assert summary.undecodable > 0
    assert summary.answered == len(delays)
    assert answer.number > FRAMES - 100
    third = len(delays) // 3
    assert np.median(delays[-third:]) < 5 * np.median(delays[:third])
    assert np.median(delays) < 1  # of the twenty times faster clock: far under the 30 s that the loop takes
    assert max(megabytes[third:]) - megabytes[third] < 10
    assert set(best.frames) == {"left", "right"}
