from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

from monai_fetalkd.deployment.stream import Arrival, Latest, Stream
from monai_fetalkd.ultrasound.frames import Frame

from .make import Halves, arrivals, half

ROUNDS, BURST = 5, 20
PATIENCE = 20  # seconds, after which a test has failed


class Busy(Halves):
    """A recognizer that is never done before a whole burst of frames has come."""

    def __init__(self):
        self.started, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.alive = self.most_alive = 0

    def __call__(self, pixels, region=None):
        self.started.release()
        assert self.done.acquire(timeout=PATIENCE)
        self.most_alive = max(self.most_alive, self.alive)
        return super().__call__(pixels)

    def source(self):
        yield self.arrival(0)
        for start in range(1, ROUNDS * BURST, BURST):
            assert self.started.acquire(timeout=PATIENCE)
            yield from map(self.arrival, range(start, start + BURST))
            self.done.release()  # by now the last of them is in the slot
        assert self.started.acquire(timeout=PATIENCE)
        self.done.release()

    def arrival(self, number):
        frame = Frame(half("left", number).astype(np.float32), number)
        self.alive += 1
        weakref.finalize(frame, self.forget)
        return Arrival(number, None, lambda: frame)

    def forget(self):
        self.alive -= 1


def test_the_frame_answered_next_is_the_latest_and_all_between_are_dropped():
    recognizer = Busy()
    stream = Stream(recognizer, recognizer.source(), live=True)
    answers = [(answer.number, answer.dropped) for answer in stream]
    assert answers == [(number * BURST, number * (BURST - 1)) for number in range(ROUNDS + 1)]
    summary = stream.summary
    assert (summary.seen, summary.answered, summary.dropped) == (101, 6, 95)


def test_however_many_frames_come_no_more_than_three_are_in_memory():
    recognizer = Busy()
    for _ in Stream(recognizer, recognizer.source(), live=True):
        pass
    assert 1 <= recognizer.most_alive <= 3  # one worked on, one in the slot, one in the hand of the reader


def test_without_live_no_frame_is_dropped():
    stream = Stream(Halves(), arrivals(["left"] * 30))
    assert [answer.number for answer in stream] == list(range(30))
    assert stream.summary.dropped == 0


def test_a_frame_in_the_slot_is_answered_when_the_source_has_ended():
    latest = Latest(arrivals(["left"]))
    assert [arrival.number for arrival in latest] == [0]


def test_an_error_of_the_source_is_raised_after_the_frames_before_it():
    def failing():
        yield from arrivals(["left"])
        raise OSError("the probe was unplugged")

    latest = iter(Latest(failing()))
    assert next(latest).number == 0
    with pytest.raises(OSError, match="unplugged"):
        next(latest)


def test_it_can_be_stopped_while_it_waits_for_a_frame():
    silent = threading.Event()

    def source():
        yield from arrivals(["left"])
        silent.wait(PATIENCE)

    latest = Latest(source())
    frames = iter(latest)
    next(frames)
    threading.Timer(0.05, latest.stop).start()
    assert list(frames) == []
    silent.set()


def test_a_frame_that_nobody_takes_before_the_stop_counts_as_dropped():
    came, stopped = threading.Event(), threading.Event()

    def source():
        yield from arrivals(["left", "left"])
        came.set()
        stopped.wait(PATIENCE)

    latest = Latest(source())
    frames = iter(latest)
    next(frames)
    assert came.wait(PATIENCE)
    latest.stop()
    stopped.set()
    assert list(frames) == []
    assert latest.dropped == 1
