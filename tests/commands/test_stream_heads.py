"""The stream command with a segmentation network."""

import json

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from monai_fetalkd.__main__ import main

from ..deployment.runtime.test_segmenter import disc, write_segmenter
from ..deployment.runtime.torch_free import run_without_torch
from ..ultrasound.frames.make import dataset


@pytest.fixture
def model(tmp_path):
    return str(write_segmenter(tmp_path / "student.onnx"))


@pytest.fixture
def loop(tmp_path):
    """A cine of three heads that grow, of pixels of 0.2 mm."""
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 159, 119
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.02
    frames = np.stack([disc((120, 160), (60, 80), radius) for radius in (25, 30, 35)]).astype(np.uint8)
    file = dataset(frames, SequenceOfUltrasoundRegions=[region], FrameTime="40")
    file.save_as(tmp_path / "loop.dcm", enforce_file_format=True)
    return str(tmp_path / "loop.dcm")


def test_circumferences_in_mm_and_an_overlay(model, loop, tmp_path, capsys):
    film = tmp_path / "heads.gif"
    assert main(["stream", model, loop, "--overlay", str(film), "--backend", "onnxruntime"]) == 0
    *answers, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [answer["unit"] for answer in answers] == ["mm"] * 3
    found = [answer["circumference"] for answer in answers]
    assert found == pytest.approx([2 * np.pi * radius * 0.2 for radius in (25, 30, 35)], rel=0.02)
    assert last["summary"]["answered"] == 3
    assert Image.open(film).n_frames == 3


@pytest.mark.parametrize("option", [["--best", "planes"], ["--timeline", "a.png"], ["--threshold", "0.5"]])
def test_options_of_planes_are_refused(model, loop, option, capsys):
    assert main(["stream", model, loop, *option]) == 1
    assert option[0] in capsys.readouterr().err


def test_it_needs_no_torch(model, loop):
    result = run_without_torch(["stream", model, loop, "--backend", "onnxruntime"])
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 4
