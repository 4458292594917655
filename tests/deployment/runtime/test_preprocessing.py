"""A frame becomes the same input with numpy as with the configs of the bundle, which take MONAI and torch."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from monai_fetalkd.deployment.runtime import Preprocessing
from monai_fetalkd.ultrasound.data import phantom_frame
from monai_fetalkd.ultrasound.frames import read_frame
from monai_fetalkd.ultrasound.transforms import Letterboxd

from ...ultrasound.frames.make import anatomy, dataset, region

SIDE = 64


@pytest.fixture(scope="module", params=[False, True], ids=["inference.json", "ultrasound.json"])
def reading(request, project_dir):
    """The reading of a file by the configs, and the same in numpy."""
    configs = [project_dir / "bundle" / "configs" / "inference.json"]
    if request.param:
        configs.append(configs[0].with_name("ultrasound.json"))
    parser = ConfigParser()
    parser.read_config(configs)
    parser["bundle_root"] = str(project_dir / "bundle")
    parser["image_size"] = [SIDE, SIDE]
    transforms = parser.get_parsed_content("preprocessing")
    preprocessing = Preprocessing((SIDE, SIDE), crop=request.param)

    def read(path):
        frame = read_frame(path)
        return transforms({"image": str(path)})["image"].numpy(), preprocessing(frame.pixels, frame.region)

    return read


def assert_equal(expected, result):
    assert result.dtype == np.float32
    assert result.shape == expected.shape == (1, SIDE, SIDE)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)
    assert result.max() > 0.1


@pytest.mark.parametrize(
    "size", [(660, 960), (661, 959), (959, 661), (65, 64), (64, 64), (63, 40), (17, 300), (16, 16), (40, 31)]
)
def test_frames_of_any_size_become_the_input_of_the_configs(reading, tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    assert_equal(*reading(tmp_path / "frame.png"))


@pytest.mark.parametrize("plane", range(6))
@pytest.mark.parametrize("side", [48, 200])
def test_phantom_frames_become_the_input_of_the_configs(reading, tmp_path, plane, side):
    Image.fromarray(phantom_frame(plane, np.random.default_rng(plane), side)).save(tmp_path / "frame.png")
    assert_equal(*reading(tmp_path / "frame.png"))


def test_real_frames_become_the_input_of_the_configs(reading, shared_dir):
    with (shared_dir / "data" / "planes.csv").open(newline="") as file:
        names = sorted(row["image"] for row in csv.DictReader(file))[::20]
    for name in names:
        assert_equal(*reading(shared_dir / "data" / name))


@pytest.mark.parametrize("reading", [True], indirect=True, ids=["ultrasound.json"])
def test_the_region_of_a_dicom_file_becomes_the_input_of_the_configs(reading, tmp_path):
    pixels = np.kron(anatomy(), np.ones((5, 5), np.uint8))
    dataset(pixels, SequenceOfUltrasoundRegions=[region(60, 20, 260, 180)]).save_as(
        tmp_path / "frame.dcm", enforce_file_format=True
    )
    frame = read_frame(tmp_path / "frame.dcm")
    assert frame.region is not None
    expected, result = reading(tmp_path / "frame.dcm")
    assert_equal(expected, result)
    assert not np.allclose(result, Preprocessing((SIDE, SIDE), crop=True)(frame.pixels))


@pytest.mark.parametrize("size", [(500, 700), (30, 41), (30, 300)])
@pytest.mark.parametrize("new", [(32, 48), (224, 224), (7, 90)])
def test_inputs_that_are_not_square_are_those_of_letterboxd(size, new):
    pixels = np.random.default_rng(0).uniform(40, 250, size).astype(np.float32)
    expected = Compose([Letterboxd("image", new)])({"image": MetaTensor(torch.from_numpy(pixels)[None])})["image"]
    np.testing.assert_allclose(Preprocessing(new, crop=True)(pixels), expected.numpy() / 255, rtol=0, atol=1e-5)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_the_type_of_the_pixels_does_not_matter_and_they_stay(crop, dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120)).astype(dtype)
    before = pixels.copy()
    pixels.flags.writeable = False
    preprocessing = Preprocessing((SIDE, SIDE), crop)
    np.testing.assert_allclose(preprocessing(pixels), preprocessing(pixels.astype(np.float32)), rtol=0, atol=1e-6)
    assert np.array_equal(pixels, before)


def test_white_stays_white_however_many_pixels_are_averaged():
    result = Preprocessing((8, 8), crop=False)(np.full((3000, 3000), 255, np.uint8))
    np.testing.assert_allclose(result, 1, rtol=0, atol=1e-5)


def test_preprocessing_travels_as_json():
    preprocessing = Preprocessing((224, 160), crop=True)
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": [224, 224]}, "a 'size' and a 'crop', not {'size'"),
        ({"size": [224, 224], "crop": True, "mean": 0.5}, "a 'size' and a 'crop', not .*mean"),
        ({"size": 224, "crop": True}, "a 'size' and a 'crop'"),
        ({"size": [224, 224], "crop": "yes"}, "true or false, not 'yes'"),
        ({"size": [224], "crop": True}, "height and width in pixels"),
        ({"size": [224, 0], "crop": True}, "height and width in pixels"),
        ({"size": [224, 1.5], "crop": True}, "height and width in pixels"),
    ],
)
def test_fields_that_are_none_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Preprocessing.from_dict(fields)


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 20, 3), (400,), (1, 20)])
@pytest.mark.parametrize("crop", [False, True])
def test_what_is_no_frame_is_refused(shape, crop):
    with pytest.raises(ValueError, match=r"shape \(H, W\), not"):
        Preprocessing((8, 8), crop)(np.zeros(shape))
