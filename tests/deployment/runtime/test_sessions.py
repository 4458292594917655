from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from monai_fetalkd.deployment.runtime.sessions import fastest

SIGNAL = """
import os, signal, sys
from monai_fetalkd.deployment.runtime import Recognizer
first, second = (Recognizer(sys.argv[1], sys.argv[2]) for _ in range(2))
del first
del second
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


class Clock:
    """Stands still but for the sessions that compute."""

    now = 0.0

    def __call__(self):
        return self.now


class Timed:
    """A session that takes these seconds at its first call, and these at each later one."""

    def __init__(self, clock, first, later):
        self.clock, self.seconds, self.later = clock, first, later

    def __call__(self, inputs, output):
        self.clock.now += self.seconds
        self.seconds = self.later


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ([(1, 1), (1, 0.95)], 0),  # not faster by a tenth
        ([(1, 1), (1, 0.85)], 1),
        ([(1, 1), (9, 0.5)], 1),  # the first call warms up
        ([(0, 1), (1, 0.5)], 1),
        ([(1, 1)], 0),
    ],
)
def test_another_runtime_than_the_first_must_be_faster_by_more_than_a_tenth(seconds, chosen):
    clock = Clock()
    sessions = [Timed(clock, *times) for times in seconds]
    assert fastest(sessions, np.zeros((1, 1, 8, 8), np.float32), clock) is sessions[chosen]


@pytest.mark.skipif(sys.platform == "win32", reason="it ends a process that is sent a signal")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_signals_reach_python_after_networks_are_gone_in_the_order_in_which_they_came(model, backend):
    pytest.importorskip(backend)
    done = subprocess.run([sys.executable, "-c", SIGNAL, str(model), backend], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
