"""A frame or a cine in, planes out."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import uid

from monai_fetalkd.deployment.runtime import Preprocessing
from monai_fetalkd.deployment.serve.pictures import input_box
from monai_fetalkd.ultrasound.data.phantom import phantom_frame
from monai_fetalkd.ultrasound.frames import Frame, crop_to_sector, find_sector

from ...ultrasound.frames.make import compressed, dataset
from .conftest import THRESHOLD, cine, frame, png


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "DICOM":
        compressed(frame("left"), uid.JPEGBaseline8Bit).save_as(stream, enforce_file_format=True)
    else:
        Image.fromarray(frame("left")).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "DICOM"])
def test_frames_of_all_kinds_are_recognised(client, kind):
    answer = client.post("/predict", content=encoded(kind)).json()
    assert [found["plane"] for found in answer["frames"]] == ["left"]
    assert answer["best"] == [{"plane": "left", "frame": 0, "probability": answer["frames"][0]["probability"]}]


def test_probabilities_are_those_of_the_runtime(client, recognizer):
    answer = client.post("/predict", content=png("right")).json()
    expected = dict(zip(recognizer.class_names, recognizer(frame("right")), strict=True))
    [found] = answer["frames"]
    assert found["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert found["probability"] == max(found["probabilities"].values())
    assert answer["classes"] == list(recognizer.class_names)
    assert answer["threshold"] == THRESHOLD
    assert answer["ms"] >= found["ms"] > 0


def test_an_uncertain_frame_shows_no_standard_plane(client):
    answer = client.post("/predict", content=png(None)).json()
    assert answer["frames"][0]["plane"] is None
    assert answer["frames"][0]["probability"] < THRESHOLD
    assert answer["best"] == []
    assert answer["timeline"] == [{"plane": None, "first": 0, "last": 0}]


def test_a_form_and_a_body_are_the_same(client):
    as_body = client.post("/predict", content=png()).json()
    as_form = client.post("/predict", files={"file": ("a.dcm", png(), "text/html")}).json()  # neither is believed
    for answer in (as_body, as_form):
        del answer["ms"], answer["frames"][0]["ms"]
    assert as_body == as_form


def test_a_cine_is_answered_frame_by_frame_and_summed_up(client):
    planes = ["left"] * 10 + [None] * 10 + ["top"] * 10
    answer = client.post("/predict", content=cine(planes)).json()
    assert [found["frame"] for found in answer["frames"]] == list(range(30))
    assert [found["time_ms"] for found in answer["frames"]] == [40 * number for number in range(30)]
    assert [segment["plane"] for segment in answer["timeline"]] == ["left", None, "top"]
    ends = [(segment["first"], segment["last"]) for segment in answer["timeline"]]
    assert ends[0][0] == 0
    assert ends[2][1] == 29
    assert [first for first, _ in ends[1:]] == [last + 1 for _, last in ends[:-1]]
    for (first, _), change in zip(ends[1:], (10, 20), strict=True):
        assert first - change in range(10)  # smoothing is late, and never early
    assert [found["plane"] for found in answer["best"]] == ["left", "top"]
    assert answer["best"][0]["frame"] in range(10)
    assert answer["best"][1]["frame"] in range(20, 30)


def test_a_damaged_frame_of_a_cine_is_skipped(client):
    pixels = np.stack([frame("left")] * 4)
    file = compressed(pixels, uid.JPEGBaseline8Bit)
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    data = stream.getvalue()
    second = data.index(b"\xff\xd8", data.index(b"\xff\xd8") + 2)
    answer = client.post("/predict", content=data[:second] + b"\0\0\0\0" + data[second + 4 :]).json()
    assert answer["undecodable"] == [1]
    assert [found["frame"] for found in answer["frames"]] == [0, 2, 3]


def test_pictures_are_sent_where_asked_for(client):
    planes = ["left"] * 6 + ["right"] * 12
    assert client.post("/predict", content=cine(planes)).json()["pictures"] == []
    answer = client.post("/predict", params={"pictures": True}, content=cine(planes)).json()
    assert [picture["frame"] for picture in answer["pictures"]] == list(range(18))  # those of a slider
    best = {found["frame"] for found in answer["best"]}
    assert {picture["frame"] for picture in answer["pictures"] if picture["attention"]} == best
    for picture, plane in zip(answer["pictures"], planes, strict=True):
        assert (picture["height"], picture["width"]) == (40, 56)
        data = base64.b64decode(picture["source"].removeprefix("data:image/jpeg;base64,"))
        shown = np.asarray(Image.open(io.BytesIO(data)), dtype=float)
        assert np.abs(shown - frame(plane)).mean() < 8


def test_where_there_is_no_plane_the_most_probable_frame_has_the_attention(client):
    answer = client.post("/predict", params={"pictures": True}, content=cine([None] * 3)).json()
    assert [picture["attention"] is not None for picture in answer["pictures"]] == [True, False, False]
    assert answer["missing"] == ["left", "right", "top"]


def test_large_frames_are_sent_as_small_pictures_and_the_best_ones_larger(client):
    pixels = np.stack([np.kron(frame(plane), np.ones((20, 40), np.uint8)) for plane in ("left", None)])
    stream = io.BytesIO()
    dataset(pixels, FrameTime=40).save_as(stream, enforce_file_format=True)
    pictures = client.post("/predict?pictures=true", content=stream.getvalue()).json()["pictures"]
    data = [base64.b64decode(picture["source"].partition(",")[2]) for picture in pictures]
    assert [Image.open(io.BytesIO(picture)).size for picture in data] == [(720, 257), (360, 129)]
    assert [(picture["width"], picture["height"]) for picture in pictures] == [(2240, 800)] * 2


@pytest.mark.parametrize("shape", [(16, 5000), (5000, 16)])
def test_a_frame_that_is_very_long_is_answered(client, shape):
    pixels = np.random.default_rng(0).integers(60, 255, shape).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    response = client.post("/predict?pictures=true", content=stream.getvalue())
    assert response.status_code == 200
    assert response.json()["pictures"][0]["width"] == shape[1]


def test_values_that_are_not_finite_spoil_neither_this_answer_nor_the_next(client):
    pixels = np.random.default_rng(0).uniform(0, 1000, (40, 56)).astype(np.float32)
    pixels[0, 0], pixels[1, 1] = np.nan, np.inf
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF")
    first, second = (client.post("/predict", content=stream.getvalue()) for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert [frame["probabilities"] for frame in first.json()["frames"]] == [
        frame["probabilities"] for frame in second.json()["frames"]
    ]
    assert "NaN" not in first.text


def test_the_answer_names_the_model_and_the_planes_that_were_not_found(make_client, make_recognizer):
    names = json.dumps(["left", "right", "Other"])
    told = {"version": "1.2.0", "created": "2026-11-01T08:00:00+00:00", "checkpoint_sha256": "0a" * 32}
    client = make_client(recognizer=make_recognizer(class_names=names, **told))
    answer = client.post("/predict", content=cine(["top", "left"] * 4)).json()
    assert (answer["model"]["name"], answer["model"]["version"]) == ("student", "1.2.0")
    assert answer["model"]["checkpoint"] == "0a" * 32
    assert "Other" not in [found["plane"] for found in answer["best"]] + answer["missing"]
    assert {found["plane"] for found in answer["best"]} | set(answer["missing"]) == {"left", "right"}
    page = client.get("/").text
    for fact in ("student", "version 1.2.0", "2026-11-01", "0a0a0a0a0a0a", "Not a medical device"):
        assert fact in page


@pytest.mark.parametrize(("side", "told"), [(2, False), (6, False), (7, True)])
def test_attention_of_a_coarse_grid_is_named_and_not_sent(make_client, make_recognizer, side, told):
    client = make_client(recognizer=make_recognizer(attention=True, size=(side, side)))
    answer = client.post("/predict?pictures=true", content=png()).json()
    assert answer["model"]["attention_grid"] == [side, side]
    assert (answer["pictures"][0]["attention"] is not None) == told


@pytest.mark.parametrize("crop", [False, True])
def test_attention_is_shown_within_the_sector_even_where_the_network_sees_more(make_client, make_recognizer, crop):
    pixels = np.zeros((120, 160), np.uint8)
    pixels[20:100, 30:130] = np.random.default_rng(0).integers(40, 200, (80, 100))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    client = make_client(recognizer=make_recognizer(attention=True, crop=crop))
    [picture] = client.post("/predict?pictures=true", content=stream.getvalue()).json()["pictures"]
    x, y = zip(*picture["attention"]["outline"], strict=True)
    assert (min(x), min(y), max(x), max(y)) == pytest.approx((30, 20, 130, 100), abs=2)


@pytest.mark.parametrize("plane", [1, 2])
def test_the_outline_is_that_of_a_fan_with_the_hollow_of_its_probe(make_client, make_recognizer, plane):
    pixels = phantom_frame(plane, np.random.default_rng(plane), 240)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    client = make_client(recognizer=make_recognizer(attention=True))
    [picture] = client.post("/predict?pictures=true", content=stream.getvalue()).json()["pictures"]
    drawn = Image.new("L", (240, 240))
    ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in picture["attention"]["outline"]], fill=1)
    sector = find_sector(pixels)
    top, left, bottom, right = sector.box
    expected = np.zeros((240, 240), bool)
    expected[top:bottom, left:right] = sector.mask
    assert not expected[top, 120]  # the hollow
    assert (np.asarray(drawn, bool) == expected).mean() > 0.985


def test_attention_is_told_where_the_model_has_it(client, make_client, make_recognizer):
    [picture] = client.post("/predict?pictures=true", content=png()).json()["pictures"]
    attention = np.array(picture["attention"]["values"])  # of the network of the tests, its input
    assert attention.shape == (32, 32)
    assert attention[8:24, :16].mean() > attention[8:24, 16:].mean() + 0.5
    without = make_client(recognizer=make_recognizer())
    [picture] = without.post("/predict?pictures=true", content=png()).json()["pictures"]
    assert picture["attention"] is None


@pytest.mark.parametrize("region", [None, (30, 40, 290, 390)])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("shape", [(300, 400), (420, 400), (64, 400)])
def test_the_box_of_the_input_maps_it_back_onto_the_frame(shape, crop, region):
    pixels = np.zeros(shape, np.float32)
    pixels[20:-4, 60:-20] = np.random.default_rng(0).uniform(40, 90, pixels[20:-4, 60:-20].shape)
    row, column = shape[0] // 2, 3 * shape[1] // 5
    pixels[row - 4 : row + 4, column - 4 : column + 4] = np.random.default_rng(1).uniform(240, 255, (8, 8))
    if crop and region and shape[0] == 64:
        region = (10, 40, 64, 390)
    preprocessing = Preprocessing(size=(96, 128), crop=crop)
    seen = preprocessing(pixels, region)[0]
    top, left, bottom, right = input_box(preprocessing, Frame(pixels, region=region))
    found = np.mean(np.argwhere(seen > 0.8), axis=0) + 0.5
    assert top + (bottom - top) * found[0] / 96 == pytest.approx(row, abs=(bottom - top) / 96)
    assert left + (right - left) * found[1] / 128 == pytest.approx(column, abs=(right - left) / 128)
    if crop:
        assert crop_to_sector(pixels, region).shape != shape
