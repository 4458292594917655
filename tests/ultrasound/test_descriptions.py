"""Weights are used for what they were trained on."""

from __future__ import annotations

import json

import pytest
import torch
from monai.transforms import Compose

from monai_fetalkd.ultrasound.descriptions import check_weights, describe_weights
from monai_fetalkd.ultrasound.transforms import CropSectord, LoadFramed
from monai_fetalkd.utils.checkpoints import save_weights

PLAIN = Compose([LoadFramed("image")])
CROPPED = Compose([LoadFramed("image"), Compose([CropSectord("image")])])
TRAINED = {"image_size": (64, 64), "class_names": ["brain", "other"], "reading": CROPPED}


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.pt"
    save_weights(torch.nn.Linear(2, 2), path)
    describe_weights(path, **TRAINED)
    return path


def test_weights_stay_a_plain_state_dict(weights):
    assert set(torch.load(weights, weights_only=True)) == {"weight", "bias"}


def test_what_they_were_trained_on_is_right(weights):
    check_weights(weights, **TRAINED)
    check_weights(weights, **{**TRAINED, "image_size": [64, 64]})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_size": (96, 96)}, r"\[64, 64\].*\[96, 96\].*image_size"),
        ({"class_names": ["other", "brain"]}, "class_names"),
        ({"class_names": ["brain"]}, "class_names"),
        ({"reading": PLAIN}, "cropped.*yes.*no"),
    ],
)
def test_what_they_were_not_trained_on_is_told(weights, change, told):
    with pytest.raises(ValueError, match=told) as caught:
        check_weights(weights, **{**TRAINED, **change})
    assert str(weights) in str(caught.value)


@pytest.mark.parametrize("reading", [PLAIN, CROPPED])
def test_weights_that_were_trained_on_both_readings_take_either(weights, reading):
    described = weights.with_suffix(".json")
    described.write_text(json.dumps(json.loads(described.read_text()) | {"crop": None}))
    check_weights(weights, **{**TRAINED, "reading": reading})


def test_weights_of_another_program_are_taken(tmp_path):
    check_weights(tmp_path / "foreign.pt", **TRAINED)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"image_size": [64, 64]}', "null"])
def test_a_damaged_description_is_told(weights, text):
    weights.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json.*damaged"):
        check_weights(weights, **TRAINED)


def test_a_later_stage_replaces_it(weights):
    describe_weights(weights, **{**TRAINED, "image_size": (96, 96)})
    assert json.loads(weights.with_suffix(".json").read_text())["image_size"] == [96, 96]
