from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Resized, SpatialPadd

from monai_fetalkd.ultrasound.transforms import Letterboxd


@pytest.mark.parametrize("size", [(661, 959), (959, 661), (224, 224), (400, 450), (225, 30)])
def test_a_larger_frame_is_resized_as_the_stock_transforms_of_inference_do(size):
    frame = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    stock = Compose(
        [
            Resized("image", spatial_size=224, size_mode="longest", mode="area"),
            SpatialPadd("image", spatial_size=(224, 224)),
        ]
    )
    expected = stock({"image": frame})["image"].as_tensor()
    assert torch.equal(Letterboxd("image", (224, 224))({"image": frame})["image"], expected)


@pytest.mark.parametrize(
    ("size", "new"), [((40, 80), (32, 48)), ((80, 40), (32, 48)), ((20, 20), (32, 48)), ((500, 16), (8, 8))]
)
def test_the_picture_keeps_its_proportions_and_lies_in_the_middle(size, new):
    frame = Letterboxd("image", new)({"image": torch.ones(1, *size)})["image"]
    assert frame.shape == (1, *new)
    rows, columns = (frame[0].amax(dim).nonzero().flatten() for dim in (1, 0))
    height, width = len(rows), len(columns)
    assert frame.sum() == height * width
    assert (height, width) == (new[0], width) or (height, width) == (height, new[1])
    assert abs(height * size[1] / size[0] - width) <= max(1, size[1] / size[0])
    for found, side in ((rows, new[0]), (columns, new[1])):
        assert abs(found[0] - (side - 1 - found[-1])) <= 1


def test_a_smaller_frame_is_enlarged_without_steps():
    ramp = torch.arange(16.0).expand(1, 16, 16)
    frame = Letterboxd("image", (64, 64))({"image": ramp})["image"]
    assert frame[0, 0].diff()[2:-2].tolist() == pytest.approx([0.25] * 59)


def test_metadata_stay_and_the_input_too():
    frame = MetaTensor(torch.rand(1, 30, 40), meta={"filename_or_obj": "a.png"})
    before = frame.clone()
    result = Letterboxd("image", (20, 20))({"image": frame})["image"]
    assert result.meta["filename_or_obj"] == "a.png"
    assert torch.equal(frame, before)


@pytest.mark.parametrize("size", [(0, 10), (10,), (10, 10, 10)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="height and width"):
        Letterboxd("image", size)


def test_a_frame_without_a_channel_is_refused():
    with pytest.raises(ValueError, match=r"'image' is \(30, 40\)"):
        Letterboxd("image", (20, 20))({"image": torch.zeros(30, 40)})
