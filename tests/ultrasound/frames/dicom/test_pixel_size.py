"""The size of a pixel, where the B-mode regions of a DICOM file tell it."""

import pytest
from pydicom.dataset import Dataset

from monai_fetalkd.ultrasound.frames import read_frame

from ..make import anatomy, dataset


def region(delta=(0.02, 0.02), units=3, data_type=1, place=(0, 0, 55, 39)):
    """A region of 2-D B-mode; ``place`` is left, top, right and bottom."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = 1, data_type
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = place
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaY, item.PhysicalDeltaX = delta
    return item


LEFT, RIGHT = (0, 0, 27, 39), (28, 0, 55, 39)


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([region()], (0.2, 0.2)),
        ([region((-0.02, 0.03))], (0.2, 0.3)),
        ([region(place=LEFT), region(place=RIGHT)], (0.2, 0.2)),
        ([region(), region((5.0, 1.0), units=4, data_type=3)], (0.2, 0.2)),
        ([region(place=LEFT), region((0.01, 0.01), place=RIGHT)], None),
        ([region(units=0)], None),
        ([region((0.0, 0.02))], None),
        ([], None),
    ],
    ids=["one", "negative", "dual view", "beside a spectrum", "two scales", "no unit", "zero", "none"],
)
def test_size_of_the_regions(tmp_path, regions, expected):
    path = tmp_path / "a.dcm"
    dataset(anatomy(), SequenceOfUltrasoundRegions=regions).save_as(path, enforce_file_format=True)
    size = read_frame(str(path)).pixel_size
    assert size == (None if expected is None else pytest.approx(expected))


def test_stretched_pixels_are_smaller(tmp_path):
    path = tmp_path / "a.dcm"
    file = dataset(anatomy(), SequenceOfUltrasoundRegions=[region((0.04, 0.02))], PixelAspectRatio=[2, 1])
    file.save_as(path, enforce_file_format=True)
    frame = read_frame(str(path))
    assert frame.pixels.shape == (80, 56)
    assert frame.pixel_size == pytest.approx((0.2, 0.2))
