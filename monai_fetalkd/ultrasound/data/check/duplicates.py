"""Which frames of a datalist are the same frame, or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from monai_fetalkd.ultrasound.data.check.fingerprints import Fingerprint

__all__ = ["MAX_DISTANCE", "MIN_CORRELATION", "Pair", "find_pairs"]

# Chosen on 460 real frames. Three near-identical pairs under two patient ids lie at distances 2 to 8 and correlations
# 0.90 to 0.95. JPEG of quality 50, gain, gamma, burned-in text and calipers or a crop by six pixels leave a frame
# within distance 10 and above correlation 0.90 of itself. Of 105,045 pairs of different patients none passes
# correlation 0.79.
MAX_DISTANCE = 12
MIN_CORRELATION = 0.87


class Pair(NamedTuple):
    """Two frames that are the same, or nearly.

    Args:
        first: position of the one in the sequence of fingerprints.
        second: position of the other, behind the first.
        correlation: of their patterns, -1 to 1.
        exact: whether they agree in every pixel.
    """

    first: int
    second: int
    correlation: float
    exact: bool


def find_pairs(
    fingerprints: Sequence[Fingerprint],
    keys: Sequence[tuple[str, ...]],
    max_distance: int = MAX_DISTANCE,
    min_correlation: float = MIN_CORRELATION,
) -> list[Pair]:
    """Find the exact and near duplicates among frames of different keys.

    Each frame is compared with all behind it: the Hamming distance of the perceptual hashes picks candidates, and the
    correlation of the patterns confirms them. Time is quadratic (12,400 frames: seconds), memory linear.

    Not found are mirrored copies, crops of more than about three in a hundred, and moments of one examination between
    which the fetus has moved: these look as much alike as the same plane of two patients on one machine.

    Args:
        fingerprints: one a frame.
        keys: one a frame; frames of equal keys are not compared, such as those of one patient and class in one split.
        max_distance: Hamming distance of 64 bits up to which two frames are candidates.
        min_correlation: Pearson correlation of the patterns from which candidates are near duplicates.

    Returns:
        The pairs, those that agree most first.

    Example:
        >>> from monai_fetalkd.ultrasound.data.check import fingerprint
        >>> frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64))
        >>> prints = [fingerprint(frame) for frame in (frames[0], frames[1], frames[0])]
        >>> find_pairs(prints, keys=[("training",), ("training",), ("testing",)])
        [Pair(first=0, second=2, correlation=1.0, exact=True)]
    """
    if len(fingerprints) < 2:
        return []
    # of two vectors of n signs the product is n - 2 x Hamming distance
    signs = np.where([each.bits for each in fingerprints], np.float32(1), np.float32(-1))
    patterns = np.stack([each.pattern for each in fingerprints])
    key, digest = _numbers(keys), _numbers([each.digest for each in fingerprints])
    agreement = signs.shape[1] - 2 * max_distance
    pairs = []
    for first in range(len(fingerprints) - 1):
        rest = slice(first + 1, None)
        similar = signs[rest] @ signs[first] >= agreement
        candidates = first + 1 + np.flatnonzero(similar & (key[rest] != key[first]))
        correlations = patterns[candidates] @ patterns[first]
        exact = digest[candidates] == digest[first]
        for index in np.flatnonzero(exact | (correlations >= min_correlation)):
            correlation = round(float(correlations[index]), 4)
            pairs.append(Pair(first, int(candidates[index]), correlation, bool(exact[index])))
    return sorted(pairs, key=lambda pair: (not pair.exact, -pair.correlation))


def _numbers(values: Sequence[object]) -> np.ndarray:
    """Equal numbers for equal values."""
    table: dict[object, int] = {}
    return np.array([table.setdefault(value, len(table)) for value in values])
