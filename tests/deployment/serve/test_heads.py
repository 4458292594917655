"""A frame or a cine in, the fetal head and its circumference out."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.deployment.runtime import Segmenter
from monai_fetalkd.deployment.serve import create_app

from ...ultrasound.frames.dicom.test_pixel_size import region
from ...ultrasound.frames.make import dataset
from ..runtime.test_segmenter import disc, write_segmenter

SHAPE, CENTER, RADIUS = (150, 200), (70, 110), 40.0
LENGTH = 2 * math.pi * RADIUS
IN_MM = {"SequenceOfUltrasoundRegions": [region((0.05, 0.05), place=(0, 0, 199, 149))]}  # half a mm


def frame(radius: float = RADIUS) -> np.ndarray:
    """Bright where the head is, and dark but not blank around it."""
    dark = np.tile(np.array([[40, 44]], np.uint8), (SHAPE[0], SHAPE[1] // 2))
    return np.maximum(disc(SHAPE, CENTER, radius).astype(np.uint8), dark)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def cine(*frames: np.ndarray, **elements) -> bytes:
    stream = io.BytesIO()
    dataset(np.stack(frames), FrameTime=40, **elements).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory) -> Segmenter:
    return Segmenter(write_segmenter(tmp_path_factory.mktemp("head") / "head.onnx"), backend="onnxruntime")


@pytest.fixture
def heads(make_client, segmenter):
    return make_client(recognizer=segmenter)


def opened(data_uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2])))


def test_the_head_of_a_picture_is_measured_in_pixels(heads):
    answer = heads.post("/predict", content=png(frame())).json()
    [found] = answer["frames"]
    assert found["unit"] == "pixels"
    assert found["circumference"] == pytest.approx(LENGTH, rel=0.02)
    assert found["ellipse"]["center"] == pytest.approx(CENTER, abs=1)
    assert answer["pictures"] == []
    assert answer["model"]["name"] == "head"


def test_the_head_of_a_cine_is_measured_in_mm_where_the_file_tells_the_size(heads):
    upload = cine(frame(), frame(0), frame(RADIUS / 2), frame(RADIUS / 2), **IN_MM)
    answer = heads.post("/predict", content=upload).json()
    lengths = [found["circumference"] for found in answer["frames"]]
    assert lengths[1] is None
    assert lengths[0] == pytest.approx(LENGTH / 2, rel=0.02)
    told = answer["circumference"]
    assert (told["unit"], told["frames"]) == ("mm", 3)
    assert told["median"] == told["smallest"] == pytest.approx(LENGTH / 4, rel=0.04)
    assert told["largest"] == lengths[0]


def test_a_frame_without_a_head_says_so(heads):
    answer = heads.post("/predict", content=png(frame(0))).json()
    assert answer["frames"][0]["ellipse"] is None
    assert answer["circumference"] is None


def test_pictures_show_mask_and_ellipse_where_the_head_is(heads):
    answer = heads.post("/predict?pictures=true", content=png(frame())).json()
    [picture] = answer["pictures"]
    assert (picture["width"], picture["height"]) == SHAPE[::-1]
    mask = np.asarray(opened(picture["mask"]))[..., 3] > 127
    assert opened(picture["source"]).size == mask.shape[::-1]
    assert np.mean(mask != (frame() > 127)) < 0.01
    columns, rows = np.transpose(picture["outline"])
    assert np.hypot(rows - CENTER[0], columns - CENTER[1]) == pytest.approx(RADIUS, abs=1)


def test_heads_are_counted(heads):
    heads.post("/predict", content=cine(frame(), frame(0)))
    text = heads.get("/metrics").text
    assert 'monai_fetalkd_frames_total{outcome="head"} 1.0' in text
    assert 'monai_fetalkd_frames_total{outcome="no_head"} 1.0' in text


@pytest.mark.parametrize(("upload", "status"), [(b"", 422), (b"text", 415), (png(frame())[:80], 422)])
def test_what_is_no_frame_is_refused_as_for_planes(heads, upload, status):
    response = heads.post("/predict", content=upload)
    assert response.status_code == status
    assert response.json()["detail"].startswith("The upload")


def test_a_network_of_more_classes_is_refused(tmp_path):
    segmenter = Segmenter(write_segmenter(tmp_path / "a.onnx"), backend="onnxruntime")
    segmenter.class_names = ("background", "head", "plexus")
    with pytest.raises(ValueError, match="plexus"):
        create_app(segmenter)
