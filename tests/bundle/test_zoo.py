"""What the Model Zoo's CI asks of a bundle (its CONTRIBUTING.md, ci/verify_bundle.py and commit hooks), asked here."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import (
    ConfigParser,
    ckpt_export,
    create_workflow,
    download_large_files,
    verify_metadata,
    verify_net_in_out,
)

NAME = "fetal_ultrasound_plane_classification"  # the folder under models/ of the zoo
LARGEST = 25 * 2**20  # bytes of a file in git
WEIGHTS = ("models/model.pt", "configs/inference.json")  # with LICENSE and metadata, the files the zoo asks for


@pytest.fixture(scope="module")
def tracked(bundle_dir) -> list[Path]:
    """The files of the bundle as git has them, without what runs have left there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=bundle_dir,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listed.stdout.splitlines()]


@pytest.fixture(scope="module")
def in_the_zoo(bundle_dir, tracked, tmp_path_factory) -> Path:
    """The bundle as it would lie in the zoo, with its weights."""
    folder = tmp_path_factory.mktemp("models") / NAME
    for path in tracked:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle_dir / path, folder / path)
    return folder


def test_the_files_that_the_zoo_asks_for_are_there(in_the_zoo):
    for path in ("LICENSE", "configs/metadata.json", "docs/README.md", "docs/data_license.txt", *WEIGHTS):
        assert (in_the_zoo / path).stat().st_size > 0


def test_no_file_is_larger_than_git_takes_and_the_student_is_none(in_the_zoo):
    assert max(path.stat().st_size for path in in_the_zoo.rglob("*") if path.is_file()) < LARGEST


def test_large_files_are_listed_as_the_zoo_reads_them(in_the_zoo):
    download_large_files(bundle_path=str(in_the_zoo))
    parser = ConfigParser()
    parser.read_config(str(in_the_zoo / "large_files.yml"))
    for entry in parser.get()["large_files"]:
        assert {"path", "url"} <= entry.keys() <= {"path", "url", "hash_val", "hash_type"}


def test_names_tell_the_task_and_the_data(in_the_zoo):
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", in_the_zoo.name)
    assert "classification" in in_the_zoo.name  # MONAI Label takes the type of the task from it
    assert json.loads((in_the_zoo / "configs" / "metadata.json").read_text())["name"]
    assert f"models/{NAME}" in (in_the_zoo / "docs" / "README.md").read_text()


def test_version_is_in_the_changelog(in_the_zoo):
    metadata = json.loads((in_the_zoo / "configs" / "metadata.json").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"])
    assert metadata["version"] == next(iter(metadata["changelog"]))
    assert all(metadata["changelog"].values())


def test_metadata_follow_their_schema(in_the_zoo, shared_dir):
    (in_the_zoo / "eval").mkdir(exist_ok=True)
    shutil.copy(shared_dir / "schemas" / "meta_schema_20240725.json", in_the_zoo / "eval" / "schema.json")
    verify_metadata(
        meta_file=str(in_the_zoo / "configs" / "metadata.json"), filepath=str(in_the_zoo / "eval" / "schema.json")
    )


def test_texts_are_as_the_commit_hooks_leave_them(in_the_zoo, tracked):
    assert len({str(path).lower() for path in tracked}) == len(tracked)
    for path in tracked:
        text = (in_the_zoo / path).read_text()
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert not re.search(r"[ \t]$", text, re.MULTILINE), path
        if path.suffix == ".json":  # pretty-format-json --indent=4 --no-sort-keys
            assert text == json.dumps(json.loads(text), indent=4) + "\n", path


def test_no_path_names_a_person_or_a_machine(in_the_zoo, tracked):
    for path in tracked:
        assert not re.search(r"/(home|root|Users|workspace)/", (in_the_zoo / path).read_text()), path


def test_inference_has_the_ids_that_the_zoo_asks_for(in_the_zoo):
    config = json.loads((in_the_zoo / "configs" / "inference.json").read_text())
    assert {"bundle_root", "device", "network_def", "inferer", "output_dir"} <= config.keys()


def test_training_has_the_ids_that_the_zoo_asks_for(in_the_zoo):
    config = json.loads((in_the_zoo / "configs" / "train.json").read_text())
    assert {"bundle_root", "device", "dataset_dir", "output_dir", "val_interval"} <= config.keys()
    assert {"trainer", "dataset", "handlers", "preprocessing", "inferer"} <= config["train"].keys()
    assert "max_epochs" in config["train"]["trainer"]
    assert {
        "evaluator",
        "handlers",
        "dataset",
        "preprocessing",
        "postprocessing",
        "inferer",
        "key_metric",
    } <= config["validate"].keys()
    assert "data" in config["train"]["dataset"]
    assert "data" in config["validate"]["dataset"]
    validation = next(item for item in config["train"]["handlers"] if item["_target_"] == "ValidationHandler")
    assert validation["interval"] == "@val_interval"


def test_the_zoos_checks_of_the_network_pass(in_the_zoo):
    """In the order and with the arguments of the zoo's script."""
    meta, config = (str(in_the_zoo / "configs" / name) for name in ("metadata.json", "inference.json"))
    workflow = create_workflow(
        workflow_type="inference",
        bundle_root=str(in_the_zoo),
        config_file=config,
        logging_file=False,
        meta_file=meta,
    )
    assert workflow.check_properties() == []
    verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, bundle_root=str(in_the_zoo))
    exported = in_the_zoo / "models" / "verify_model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(in_the_zoo / "models" / "model.pt"),
        meta_file=meta,
        config_file=config,
        bundle_root=str(in_the_zoo),
    )
    assert torch.jit.load(exported)(torch.rand(2, 1, 128, 128)).shape == (2, 6)


ALONE = """
import sys
sys.modules["monai_fetalkd"] = None  # whoever imports it gets a ModuleNotFoundError
from monai.bundle import run
run(config_file="configs/inference.json", dataset_dir=sys.argv[1])
"""


def test_inference_runs_with_stock_monai_alone(in_the_zoo, frames_dir):
    """In a process of its own, from the folder of the bundle, with no argument but the frames."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(frames_dir)], cwd=in_the_zoo, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with (in_the_zoo / "eval" / "predictions.csv").open() as file:
        rows = [[float(value) for value in row[1:]] for row in csv.reader(file)]
    assert len(rows) == len(list(frames_dir.glob("*.png")))
    assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in rows)
