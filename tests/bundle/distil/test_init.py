"""From a bundle with a trained network to a small one, as a user does it."""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
from pathlib import Path

import monai
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out

from monai_fetalkd.__main__ import main

from .make import TRAIN, UNET, bundle


@pytest.fixture(autouse=True)
def as_it_was():
    """Undo what a run does to this process."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    yield
    sys.excepthook = hook
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def init(folder: Path, teacher: Path, *more: str) -> int:
    return main(["init", str(folder), "--teacher", str(teacher), *more])


def overlay(folder: Path) -> dict:
    return json.loads((folder / "configs" / "distill.json").read_text())


def run(teacher: Path, student: Path, run_id: str = "run", **overrides) -> ConfigWorkflow:
    flow = ConfigWorkflow(
        [str(next((teacher / "configs").glob("train.*"))), str(student / "configs" / "distill.json")],
        workflow_type="train",
        logging_file=False,
        run_id=run_id,
        **{"bundle_root": str(student), "distil#distillation#epochs": 1, "distil#timings": 1, **overrides},
    )
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A teacher bundle and its student bundle, trained."""
    folder = tmp_path_factory.mktemp("bundles")
    teacher, student = bundle(folder / "organs"), folder / "small_organs"
    before = {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}
    assert init(student, teacher, "--reduce", "2") == 0
    run(teacher, student)
    assert {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()} == before
    return teacher, student


def test_one_command_trains_the_student_alone_and_in_two_stages(pair):
    _, student = pair
    names = {path.name for path in (student / "models").iterdir()}
    assert names >= {"initial.pt", "baseline.pt", "attention.pt", "model.pt"}
    table = json.loads((student / "eval" / "metrics.json").read_text())
    assert list(table) == ["teacher", "student, alone", "student, distilled"]
    parameters = [row["cost"]["parameters"] for row in table.values()]
    assert parameters[0] > parameters[1] == parameters[2]
    assert all(0 <= row["metrics"]["mean_dice"] <= 1 for row in table.values())


def test_the_overlay_takes_data_loss_and_metric_by_reference(pair):
    _, student = pair
    distil = overlay(student)["distil"]
    assert distil["label_loss"] == "@train#trainer#loss_function"
    assert distil["evaluation"]["key_val_metric"] == "@validate#evaluator#key_val_metric"
    assert distil["under_teacher"]["train_data_loader"].startswith("$kd.")
    assert distil["optimizer"]["_target_"] == "Novograd"
    assert "train" not in overlay(student)


def test_data_are_read_from_the_folder_of_the_teacher_and_caches_kept_out_of_it(pair):
    teacher, student = pair
    moved = {key: value for key, value in overlay(student).items() if "teacher_root" in str(value) and key != "distil"}
    assert list(moved) == ["datalist"]
    assert (student / "cache").is_dir()
    assert not (teacher / "cache").exists()


def test_the_student_runs_on_monai_alone(pair, monkeypatch):
    _, student = pair
    config = str(student / "configs" / "inference.json")
    assert "monai_fetalkd" not in Path(config).read_text()
    flow = ConfigWorkflow(config, workflow_type="infer", logging_file=False, bundle_root=str(student))
    flow.initialize()
    flow.run()
    network = flow.parser.get_parsed_content("network")
    weights = torch.load(student / "models" / "model.pt", weights_only=True)
    assert torch.equal(network.state_dict()["model.0.conv.weight"], weights["model.0.conv.weight"])


def test_monai_verifies_and_exports_it(pair, shared_dir, tmp_path):
    _, student = pair
    files = {name: str(student / "configs" / f"{name}.json") for name in ("metadata", "inference")}
    shutil.copy(shared_dir / "schemas" / "meta_schema_20240725.json", tmp_path / "schema.json")
    verify_metadata(meta_file=files["metadata"], filepath=str(tmp_path / "schema.json"))
    verify_net_in_out(
        net_id="network_def", meta_file=files["metadata"], config_file=files["inference"], device="cpu", n=4
    )
    exported = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(student / "models" / "model.pt"),
        meta_file=files["metadata"],
        config_file=files["inference"],
        input_shape=[1, 1, 32, 32],
    )
    assert torch.jit.load(exported)(torch.rand(1, 1, 32, 32)).shape == (1, 3, 32, 32)


def test_metadata_docs_and_licence_name_the_teacher(pair):
    teacher, student = pair
    metadata = json.loads((student / "configs" / "metadata.json").read_text())
    assert "organs 0.4.1" in metadata["changelog"][metadata["version"]]
    assert metadata["eval_metrics"] == {}
    assert metadata["monai_version"] == monai.__version__
    assert metadata["required_packages_version"] == {"nibabel": "5.2.1"}
    assert "`organs` 0.4.1" in (student / "docs" / "README.md").read_text()
    assert (student / "LICENSE").read_text() == (teacher / "LICENSE").read_text()


def test_a_run_goes_on_where_it_was(pair):
    teacher, student = pair
    weights = (student / "models" / "baseline.pt").stat().st_mtime_ns
    run(teacher, student, **{"distil#resume": True})
    assert (student / "models" / "baseline.pt").stat().st_mtime_ns == weights


def test_targets_of_the_teacher_can_be_stored(pair):
    teacher, student = pair
    dataset = {  # transforms without a lambda, which no file could be named by
        "_target_": "CacheDataset",
        "data": "$[{'image': torch.rand(1, 32, 32), 'label': torch.zeros(1, 32, 32)} for _ in range(4)]",
        "transform": {
            "_target_": "Compose",
            "transforms": [{"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5}],
        },
    }
    flow = run(teacher, student, "run_distillation", **{"distil#views": 2, "train#dataset": dataset})
    assert math.isfinite(flow.parser.get_parsed_content("distil#distillation#trainer").state.output["kd"])
    assert any((student / "targets").iterdir())


# other ids and numbers without classes, as in valve_landmarks
POINTS = {
    "_target_": "Regressor",
    "in_shape": [1, 32, 32],
    "out_shape": [4],
    "channels": [4, 8],
    "strides": [2, 2],
}
REGRESSION: dict = {
    "loss": {"_target_": "torch.nn.L1Loss"},
    "network_def": POINTS,
    "train#transforms#1#func": "$lambda _: torch.rand(4)",
    "train#trainer": None,
    "train#handlers": None,
    "validate": None,
    "teach": {
        "_target_": "SupervisedTrainer",
        "max_epochs": 8,
        "device": "@device",
        "train_data_loader": "@train#dataloader",
        "network": "@network",
        "loss_function": "@loss",
        "optimizer": "@optimizer",
    },
    "judge": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@train#dataloader",
        "network": "@network",
        "key_val_metric": {
            "error": {
                "_target_": "MeanAbsoluteError",
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "metric_cmp_fn": "$lambda now, best: now < best",
    },
    "initialize": None,
    "run": None,
    "training": ["$@teach.run()"],
}


def test_ids_do_not_matter_and_values_can_be_distilled(tmp_path):
    teacher = bundle(tmp_path / "points", REGRESSION, {"network_def": POINTS})
    assert init(tmp_path / "small", teacher) == 0
    flow = run(teacher, tmp_path / "small")
    loss = flow.parser.get_parsed_content("distil#loss")
    assert isinstance(loss.label_loss, torch.nn.L1Loss)
    assert loss.soft_target_loss is loss.label_loss
    table = json.loads((tmp_path / "small" / "eval" / "metrics.json").read_text())
    assert all(row["metrics"]["error"] > 0 for row in table.values())


def test_a_config_in_yaml_with_modules_of_its_own(tmp_path):
    teacher = bundle(tmp_path / "organs")
    content = json.loads((teacher / "configs" / "train.json").read_text())
    content["loss"] = {"_target_": "scripts.losses.OwnLoss", "softmax": True}
    (teacher / "configs" / "train.json").unlink()
    (teacher / "configs" / "train.yaml").write_text(yaml.safe_dump(content))
    (teacher / "scripts").mkdir()
    (teacher / "scripts" / "__init__.py").write_text("")
    (teacher / "scripts" / "losses.py").write_text("from monai.losses import DiceCELoss\nOwnLoss = DiceCELoss\n")
    assert init(tmp_path / "small", teacher) == 0
    assert (tmp_path / "small" / "scripts" / "losses.py").is_file()
    assert "PYTHONPATH=small " in (tmp_path / "small" / "docs" / "README.md").read_text()


def test_another_network_can_be_the_student(tmp_path):
    teacher = bundle(tmp_path / "organs")
    definition = {"_target_": "BasicUNet", "spatial_dims": 2, "out_channels": 3, "features": [4] * 6}
    (tmp_path / "student.json").write_text(json.dumps({"network_def": definition}))
    assert init(tmp_path / "small", teacher, "--student", str(tmp_path / "student.json")) == 0
    inference = json.loads((tmp_path / "small" / "configs" / "inference.json").read_text())
    assert inference["network_def"] == definition
    assert overlay(tmp_path / "small")["distil"]["teacher_layers"] == [
        "model.0",
        "model.1.submodule.1.submodule",
        "model.1.submodule",
    ]


def test_the_networks_are_printed_with_their_cost_and_pairs(tmp_path, capsys):
    assert init(tmp_path / "small", bundle(tmp_path / "organs")) == 0
    shown = capsys.readouterr().out
    network = ConfigParser({"names": TRAIN["names"], "net": UNET}).get_parsed_content("net")
    assert f"{sum(value.numel() for value in network.parameters()):,}" in shown
    assert "model.1.submodule" in shown
    assert "multiply-accumulates" in shown


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
