"""Temporal smoothing that is causal: an answer depends on this frame and those before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Smoothing"]

_SMALLEST = 1e-6  # a probability of 0 in one frame would rule its class out for ever


class Smoothing:
    r"""Exponential filter of log-probabilities.

    .. math::
        \log s_t = a^k \log s_{t-1} + (1 - a^k) \log p_t - \text{const}, \qquad a = 2^{-1 / (d + 1/2)}

    with :math:`k` the steps since the frame before (more than 1 after dropped frames) and the constant that makes
    :math:`s_t` sum to one; :math:`s_0 = p_0`. It is a weighted geometric mean of the probabilities so far. So where all
    frames say the same, the smoothed answer says that too, neither more nor less sure, and a threshold chosen on single
    frames keeps its meaning. A hidden Markov filter multiplies the evidence of frames as if they were independent,
    which those of a loop are not, and comes out sure of almost everything.

    When one class gives way to another of the same certainty, the answer follows :math:`d` frames late: the filter
    changes its mind once the weight of the old, :math:`a^n`, is under a half, which is at the :math:`d + 1`-th new
    frame.

    Args:
        delay: :math:`d`, in frames of the source; 0 for no smoothing at all.

    Raises:
        ValueError: when the delay is negative.

    Example:
        >>> smoothing = Smoothing(delay=2)
        >>> steps = [[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 4
        >>> [int(smoothing.update(np.array(step)).argmax()) for step in steps]
        [0, 0, 0, 0, 0, 1, 1]
    """

    def __init__(self, delay: int = 3) -> None:
        if delay < 0:
            raise ValueError(f"The delay of smoothing is a number of frames, 0 or more, not {delay}.")
        self._keep = 2.0 ** (-1 / (delay + 0.5)) if delay else 0.0
        self._logs: NDArray[np.float64] | None = None

    def update(self, probabilities: NDArray[np.float64], steps: int = 1) -> NDArray[np.float64]:
        """Take in one frame.

        Args:
            probabilities: of this frame, ``(C,)``.
            steps: how many frames after the last one it is; at least 1.

        Returns:
            The smoothed probabilities, ``(C,)``.

        Raises:
            ValueError: when a probability is not finite, which would spoil all frames after it; nothing is taken in.
        """
        if not np.isfinite(probabilities).all():
            raise ValueError(f"Probabilities are finite numbers, not {probabilities.tolist()}.")
        if not self._keep:
            return probabilities
        logs = np.log(np.maximum(probabilities, _SMALLEST))
        if self._logs is not None:
            keep = self._keep**steps
            logs = keep * self._logs + (1 - keep) * logs
        self._logs = logs - np.log(np.exp(logs).sum())
        return np.exp(self._logs)
