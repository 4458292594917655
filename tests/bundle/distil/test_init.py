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

from .make import TRAIN, UNET, bundle, init


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
