from __future__ import annotations

import numpy as np
import pytest

from monai_fetalkd.ultrasound.frames import FrameWarning, iterate_frames

from ..make import anatomy, dataset, functional_group

CINE = np.stack([anatomy(number) for number in range(3)])


def times(write, **elements):
    pointer = elements.pop("pointer", None)
    file = dataset(CINE, **elements)
    if pointer is not None:
        file.add_new("FrameIncrementPointer", "AT", pointer)
    return [frame.time for frame in iterate_frames(write(file, "cine.dcm"))]


FRAME_TIME, VECTOR = 0x00181063, 0x00181065


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"FrameTime": 40, "FrameTimeVector": [0, 10, 30], "pointer": FRAME_TIME}, [0, 40, 80]),
        ({"FrameTime": 40, "FrameTimeVector": [0, 10, 30], "pointer": VECTOR}, [0, 10, 40]),
        ({"FrameTime": 40, "FrameTimeVector": [0, 0, 0], "pointer": FRAME_TIME}, [0, 40, 80]),
        ({"FrameTimeVector": [10, 30]}, [0, 10, 40]),
    ],
    ids=["pointer at the step", "pointer at the vector", "vector of zeros", "vector without the first"],
)
def test_of_several_statements_the_header_says_which_counts(write, elements, expected):
    assert times(write, **elements) == expected


@pytest.mark.parametrize("vector", [[40], [0, 0, 0], [0, 1, 2, 3, 4], [0, -5, -5], None])
def test_times_that_cannot_be_used_cost_no_frame(write, vector):
    with pytest.warns(FrameWarning, match="FrameTimeVector"):
        assert times(write, FrameTimeVector=vector) == [None] * 3
    assert times(write, FrameTimeVector=vector, CineRate=50) == [0, 20, 40]


@pytest.mark.parametrize(
    "groups",
    [
        [functional_group(TemporalPositionSequence={"TemporalPositionTimeOffset": 1 + n * 0.04}) for n in range(3)],
        [
            functional_group(FrameContentSequence={"FrameAcquisitionDateTime": f"20240229235959.{n * 40:03}+0100"})
            for n in range(3)
        ],
        [
            functional_group(FrameContentSequence={"FrameReferenceDateTime": f"20240101000000.{n * 4:02}"})
            for n in range(3)
        ],
    ],
    ids=["offset", "acquisition", "reference"],
)
def test_the_functional_groups_tell_the_time_of_a_frame(write, groups):
    found = times(write, PerFrameFunctionalGroupsSequence=groups)
    assert found == pytest.approx([0, 40, 80])


def test_functional_groups_without_times_are_no_fault(write, recwarn):
    assert times(write, PerFrameFunctionalGroupsSequence=[functional_group()] * 3, FrameTime=10) == [0, 10, 20]
    assert not [warning for warning in recwarn if warning.category is FrameWarning]
