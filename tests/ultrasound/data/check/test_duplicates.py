from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from monai_fetalkd.ultrasound.data.check import Fingerprint, find_pairs, fingerprint


def as_jpeg(frame):
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=50)
    return np.asarray(Image.open(stream))


def brighter(frame):
    return np.clip(1.2 * frame + 15, 0, 255)


def darker(frame):
    return 255 * (frame / 255) ** 1.4


def with_text_and_calipers(frame):
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    draw.text((2, 2), "GA 22w3d", fill=255)
    for x, y in ((40, 60), (90, 70)):
        draw.line((x - 3, y, x + 3, y), fill=255)
        draw.line((x, y - 3, x, y + 3), fill=255)
    return np.asarray(picture)


def cropped(frame):
    return frame[1:-1, 1:-1]


def smaller(frame):
    return np.asarray(Image.fromarray(frame).resize((90, 90), Image.Resampling.BILINEAR))


ALTERED = [as_jpeg, brighter, darker, with_text_and_calipers, cropped, smaller]


def test_a_copy_is_an_exact_duplicate(frames):
    prints = [fingerprint(frame) for frame in (frames[0], frames[1], frames[0].astype(np.float32))]
    assert find_pairs(prints, [("training",), ("training",), ("testing",)]) == [(0, 2, 1.0, True)]


@pytest.mark.parametrize("alter", ALTERED)
def test_an_altered_copy_is_a_near_duplicate_and_of_no_other_frame(frames, alter):
    prints = [fingerprint(frame) for frame in frames] + [fingerprint(alter(frame)) for frame in frames]
    pairs = find_pairs(prints, [("training",)] * len(frames) + [("testing",)] * len(frames))
    assert sorted((pair.first, pair.second) for pair in pairs) == [(k, k + len(frames)) for k in range(len(frames))]
    assert not any(pair.exact for pair in pairs)


def test_other_frames_of_the_same_plane_are_not_confused(frames):
    assert find_pairs([fingerprint(frame) for frame in frames], [(str(k),) for k in range(len(frames))]) == []


def test_frames_of_equal_keys_are_not_compared(frames):
    prints = [fingerprint(frames[0])] * 3
    keys = [("training", "p1"), ("training", "p1"), ("training", "p2")]
    assert [(pair.first, pair.second) for pair in find_pairs(prints, keys)] == [(0, 2), (1, 2)]


def test_a_frame_of_other_shape_with_the_same_bytes_is_not_the_same_frame(frames):
    assert fingerprint(frames[0]).digest != fingerprint(frames[0].reshape(64, 256)).digest


def test_the_search_finds_what_a_plain_double_loop_finds():
    rng = np.random.default_rng(0)
    hashes = [int(rng.integers(2**63))]
    patterns = [rng.standard_normal(1024).astype(np.float32)]
    for _ in range(149):  # a random walk: neighbours differ in a few bits and a little noise
        hashes.append(hashes[-1] ^ sum(1 << int(bit) for bit in rng.integers(0, 64, size=rng.integers(0, 6))))
        patterns.append(patterns[-1] + 0.3 * rng.standard_normal(1024).astype(np.float32))
    patterns = [(pattern - pattern.mean()) / np.linalg.norm(pattern - pattern.mean()) for pattern in patterns]
    keys = [(str(rng.integers(5)),) for _ in hashes]
    prints = [
        Fingerprint(str(index).encode(), np.array([bool(value >> bit & 1) for bit in range(64)]), pattern)
        for index, (value, pattern) in enumerate(zip(hashes, patterns, strict=True))
    ]
    expected = {
        (i, j)
        for i, j in combinations(range(len(hashes)), 2)
        if keys[i] != keys[j]
        and (hashes[i] ^ hashes[j]).bit_count() <= 8
        and np.corrcoef(patterns[i], patterns[j])[0, 1] >= 0.8
    }
    found = find_pairs(prints, keys, max_distance=8, min_correlation=0.8)
    assert len(expected) > 50
    assert {(pair.first, pair.second) for pair in found} == expected
    assert [pair.correlation for pair in found] == sorted((pair.correlation for pair in found), reverse=True)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_frames_have_no_pairs(frames, count):
    assert find_pairs([fingerprint(frame) for frame in frames[:count]], [("training",)] * count) == []
