from __future__ import annotations

import numpy as np
import pytest

from monai_fetalkd.ultrasound.frames import read_frame

from ..make import anatomy, dataset, functional_group, region

GREY = anatomy()
BROKEN = region(0, 0, 55, 39)
BROKEN.RegionLocationMinX0 = None


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([BROKEN], None),
        ([BROKEN, region(4, 2, 43, 33)], (2, 4, 34, 44)),
        ([region(0, 0, 27, 39), region(28, 0, 55, 39)], (0, 0, 40, 56)),
        ([region(0, 0, 28, 39), region(28, 0, 55, 39)], (0, 0, 40, 56)),  # with the first pixel beyond
        ([region(0, 5, 19, 30), region(30, 8, 52, 36)], (5, 0, 37, 53)),
        ([region(0, 0, 37, 39), region(38, 0, 55, 17)], (0, 0, 40, 38)),  # a small picture in the corner
    ],
    ids=["empty corner", "another beside it", "dual view", "dual view that touches", "unequal views", "inset"],
)
def test_of_several_regions_those_of_like_size_are_kept_together(write, regions, expected):
    assert read_frame(write(dataset(GREY, SequenceOfUltrasoundRegions=regions), "a.dcm")).region == expected


@pytest.mark.parametrize(
    ("elements", "shape", "box"),
    [
        ({"PixelAspectRatio": ["2", "1"]}, (80, 56), (4, 4, 68, 44)),
        ({"PixelAspectRatio": ["1", "2"]}, (40, 112), (2, 8, 34, 88)),
        ({"PixelSpacing": ["0.3", "0.2"]}, (60, 56), (3, 4, 51, 44)),
        ({"PixelSpacing": ["0.2001", "0.2"]}, (40, 56), (2, 4, 34, 44)),
        ({"PixelAspectRatio": ["0", "1"]}, (40, 56), (2, 4, 34, 44)),
        ({"PixelAspectRatio": ["900", "1"]}, (40, 56), (2, 4, 34, 44)),
        ({"PixelAspectRatio": None}, (40, 56), (2, 4, 34, 44)),
        (
            {"SharedFunctionalGroupsSequence": [functional_group(PixelMeasuresSequence={"PixelSpacing": [0.4, 0.2]})]},
            (80, 56),
            (4, 4, 68, 44),
        ),
    ],
)
def test_pixels_that_are_not_square_are_made_so(write, elements, shape, box):
    file = dataset(GREY, SequenceOfUltrasoundRegions=[region(4, 2, 43, 33)], **elements)
    frame = read_frame(write(file, "a.dcm"))
    assert (frame.pixels.shape, frame.region) == (shape, box)
    assert frame.pixels.dtype == np.float32
    assert frame.pixels.mean() == pytest.approx(GREY.mean(), rel=0.01)
