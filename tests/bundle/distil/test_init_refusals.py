"""What ``init --teacher`` does not take: told in one sentence, and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monai_fetalkd.__main__ import main

from .make import UNET, bundle, init

SEVERAL = {"network_data_format#inputs": {name: {"num_channels": 1, "spatial_shape": [8]} for name in ("a", "b")}}


@pytest.mark.parametrize(
    ("changes", "arguments", "told"),
    [
        ({"weights": False}, [], "no weights"),
        ({"metadata": {"monai_version": "99.1.0"}}, [], "99.1.0"),
        ({"metadata": SEVERAL}, [], "2 images"),
        ({"metadata": {"network_data_format#inputs#image#num_channels": 3}}, [], "metadata.json"),
        ({"train": {"train#trainer#_target_": "scripts.trainer.OwnTrainer"}}, [], "OwnTrainer"),
        ({"train": {"train#trainer": None}}, [], "no trainer"),
        ({"train": {"train#trainer#iteration_update": "$print"}}, [], "iteration_update"),
        ({"train": {"loss": {"_target_": "DiceLoss"}}}, [], "DiceLoss"),
        ({"train": {"validate#evaluator": None}}, [], "SupervisedEvaluator"),
        ({"inference": {"network_def#channels": [8, 16]}}, [], "two networks"),
        ({"metadata": {"monai_version": "99.0.0+12.g7a1"}}, [], "99.0.0"),
        ({"metadata": {"network_data_format": None}}, [], "network_data_format"),
        ({"metadata": {"network_data_format#inputs": "none"}}, [], "network_data_format"),
        ({"metadata": {"network_data_format#inputs#image#spatial_shape": "32"}}, [], "'32'"),
        ({"metadata": {"network_data_format#inputs#image#spatial_shape": ["x", 32]}}, [], "spatial_shape"),
        ({"metadata": {"network_data_format#inputs#image#num_channels": "three"}}, [], "num_channels"),
        ({"metadata": {"network_data_format#inputs#image#num_channels": None}}, [], "num_channels"),
        ({"train": {"loss": {"_target_": "nowhere.Loss"}}}, [], "nowhere.Loss"),
        ({"train": {"loss": {"_target_": "DiceCELoss", "nonsense": 1}}}, [], "nonsense"),
        ({"train": {"train#trainer#loss_function": None}}, [], "no loss_function"),
        ({"train": {"train#trainer#train_data_loader": None}}, [], "no train_data_loader"),
        ({"train": {"network_def": {"_target_": "nowhere.Net"}}, "weights": False}, [], "nowhere.Net"),
        ({"train": {"network": "@one", "one": "@other", "other": "@one"}}, [], "circle"),
        ({"train": {"train#trainer#network": "@nothing"}}, [], "'nothing'"),
        ({"train": {"validate#evaluator#key_val_metric": None}}, [], "key_val_metric"),
        ({}, ["--reduce", "64"], "no channel"),
        ({}, ["--reduce", "nan"], "--reduce"),
        ({}, ["--reduce", "1"], "--reduce"),
        ({}, ["--reduce", "1.001"], "as it is"),
        ({}, ["--student", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_and_nothing_written(tmp_path, capsys, changes, arguments, told):
    teacher = bundle(tmp_path / "organs", **changes)
    assert init(tmp_path / "small", teacher, *arguments) == 1
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert told in lines[0]
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["organs"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("configs/metadata.json", "{", "metadata.json"),
        ("configs/metadata.json", "[1]", "metadata.json"),
        ("configs/train.json", "{", "train.json"),
        ("models/model.pt", "hello", "model.pt"),
        ("models/model.pt", "version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, capsys, name, content, told):
    teacher = bundle(tmp_path / "organs")
    (teacher / name).write_text(content)
    assert init(tmp_path / "small", teacher) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        (UNET | {"out_channels": 2}, "same shape"),
        (UNET | {"out_channels": 3, "in_channels": 3}, "student"),
        ({"_target_": "torch.nn.Softmax"}, "Softmax"),
        ({"_target_": "nowhere.Net"}, "nowhere.Net"),
        ([1], "student.json"),
        ({}, "network_def"),
    ],
)
def test_a_student_that_does_not_fit_is_refused(tmp_path, capsys, definition, told):
    teacher = bundle(tmp_path / "organs")
    (tmp_path / "student.json").write_text(json.dumps(definition))
    assert init(tmp_path / "small", teacher, "--student", str(tmp_path / "student.json")) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert not (tmp_path / "small").exists()


def test_nothing_is_written_into_the_teacher(tmp_path, capsys):
    teacher = bundle(tmp_path / "organs")
    assert init(teacher / "small", teacher) == 1
    assert "inside the teacher" in capsys.readouterr().err
    assert not (teacher / "small").exists()


@pytest.mark.parametrize(
    "missing", ["configs/train.json", "configs/inference.json", "configs/metadata.json", "configs"]
)
def test_a_bundle_that_lacks_a_config_is_refused(tmp_path, capsys, missing):
    teacher = bundle(tmp_path / "organs")
    (teacher / missing).rename(tmp_path / "elsewhere")
    assert init(tmp_path / "small", teacher) == 1
    assert "organs" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("given", [".", "organs/configs"])
def test_a_folder_beside_the_bundle_is_told_from_it(tmp_path, capsys, given):
    teacher = bundle(tmp_path / "organs")
    assert init(tmp_path / "small", tmp_path / given) == 1
    assert f"'{teacher}' as --teacher" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "suffix"), [("zip", ".zip"), ("gztar", ".tar.gz")])
def test_a_packed_bundle_is_to_be_unpacked(tmp_path, capsys, kind, suffix):
    bundle(tmp_path / "organs")
    packed = Path(shutil.make_archive(str(tmp_path / "organs"), kind, tmp_path, "organs"))
    assert init(tmp_path / "small", packed) == 1
    assert "unpack" in capsys.readouterr().err
    packed.write_bytes(packed.read_bytes()[:2000])
    assert init(tmp_path / "small", packed) == 1
    assert f"organs{suffix}' cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [("def net(:", "invalid syntax"), ("import nothing_like_it", "nothing_like_it"), ("", "scripts.net")],
)
def test_a_network_of_the_bundle_that_cannot_be_imported_is_told_with_the_reason(tmp_path, capsys, text, told):
    teacher = bundle(tmp_path / "organs", weights=False, train={"network_def": {"_target_": "scripts.net.Net"}})
    (teacher / "scripts").mkdir()
    for name, content in {"__init__.py": "", "net.py": text}.items():
        (teacher / "scripts" / name).write_text(content)
    assert init(tmp_path / "small", teacher) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_no_such_bundle(tmp_path, capsys):
    assert init(tmp_path / "small", tmp_path / "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_reduction_needs_a_teacher(tmp_path, capsys):
    assert main(["init", str(tmp_path / "small"), "--reduce", "2"]) == 1
    assert "--teacher" in capsys.readouterr().err
