"""The weights in the box work as they come."""

from __future__ import annotations

import csv
import hashlib
import re

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

from monai_fetalkd.deployment.runtime import SHIPPED_STUDENT, Recognizer

FILES = ["model.pt", "student.int8.onnx"]


@pytest.fixture(scope="module")
def recognizer(bundle_dir):
    return Recognizer(bundle_dir / "models" / "student.int8.onnx", backend="onnxruntime")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_one_that_the_model_card_describes(bundle_dir, name):
    card = (bundle_dir / "docs" / "model_card.md").read_text()
    digest = hashlib.sha256((bundle_dir / "models" / name).read_bytes()).hexdigest()
    assert re.search(rf"`models/{re.escape(name)}` \| `{digest}`", card)


def test_the_package_brings_the_student_of_the_bundle(bundle_dir):
    assert SHIPPED_STUDENT.read_bytes() == (bundle_dir / "models" / "student.int8.onnx").read_bytes()


def test_no_file_names_a_path_of_the_machine_that_made_it(bundle_dir):
    for path in (bundle_dir / "models").iterdir():
        assert not re.search(rb"/(home|work|root|usr|tmp)/", path.read_bytes()), path.name


@pytest.mark.parametrize("overlay", [[], ["ultrasound.json"]])
def test_a_folder_of_frames_is_classified_without_training(bundle_dir, monai_command, tmp_path, overlay):
    (tmp_path / "frames").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "frames" / f"{number}.png")
    configs = [str(bundle_dir / "configs" / name) for name in ("inference.json", *overlay)]
    options = ["--dataset_dir", tmp_path / "frames", "--output_dir", tmp_path / "out", "--device", "cpu"]
    monai_command("run", "--config_file", configs, "--bundle_root", bundle_dir, *options)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [sum(map(float, row[1:])) for row in rows] == pytest.approx([1, 1], abs=1e-5)


def test_the_exported_student_has_the_classes_and_size_of_the_bundle_and_a_threshold(bundle_dir, recognizer):
    metadata = ConfigParser.load_config_file(bundle_dir / "configs" / "metadata.json")["network_data_format"]
    assert list(recognizer.class_names) == list(metadata["outputs"]["pred"]["channel_def"].values())
    assert list(recognizer.preprocessing.size) == metadata["inputs"]["image"]["spatial_shape"]
    assert 0 < recognizer.threshold < 1


@pytest.mark.parametrize("grey", [0, 255])
def test_a_blank_picture_is_no_plane(recognizer, grey):
    probabilities = recognizer(np.full((480, 640), grey, dtype=np.uint8))
    plane = recognizer.class_names[int(probabilities.argmax())]
    assert plane == "Other" or probabilities.max() < recognizer.threshold


def test_frames_of_the_validation_rows_are_recognised(recognizer, shared_dir):
    with (shared_dir / "data" / "planes.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    right = 0
    for row in rows:
        probabilities = recognizer.file(shared_dir / "data" / row["image"])
        right += recognizer.class_names[int(probabilities.argmax())] == row["label"]
    assert right / len(rows) > 0.75
