"""The bundle as the Model Zoo, and those who only use its files, see it."""

from __future__ import annotations

import csv
import json
import shutil

import jsonschema
import pytest
import torch
from monai.bundle import ckpt_export, verify_metadata, verify_net_in_out

from monai_fetalkd.ultrasound.data import PLANE_NAMES

CONFIGS = ["train.json", "evaluate.json", "inference.json", "phantom.json", "ultrasound.json", "metadata.json"]
CONFIGS += ["multi_gpu_train.json", "multi_gpu_evaluate.json", "federated.json"]


@pytest.fixture
def student(tiny):
    return {"image_size": tiny["image_size"], "network_def": tiny["network_def"], "device": "cpu"}


def test_metadata_follow_the_schema_of_the_model_zoo(bundle_dir, shared_dir, tmp_path):
    schema = shared_dir / "schemas" / "meta_schema_20240725.json"
    metadata = json.loads((bundle_dir / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads(schema.read_text()))
    assert metadata["schema"].endswith(schema.name)
    assert metadata["version"] in metadata["changelog"]
    # MONAI's own verb downloads the schema only where it is not there yet
    shutil.copy(schema, tmp_path / "schema.json")
    verify_metadata(meta_file=str(bundle_dir / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))


def test_versions_in_metadata_are_those_that_are_tested(bundle_dir, project_dir):
    pins = dict(line.split("==") for line in (project_dir / "constraints.txt").read_text().splitlines() if "==" in line)
    metadata = json.loads((bundle_dir / "configs" / "metadata.json").read_text())
    assert metadata["monai_version"] == pins["monai"]
    assert metadata["pytorch_version"] == pins["torch"]
    assert metadata["numpy_version"] == pins["numpy"]
    for name, version in metadata["required_packages_version"].items():
        assert version == pins.get(name, metadata["version"]), name


def test_the_class_table_is_that_of_the_data(workflow):
    flow = workflow("train.json")
    flow.initialize()
    assert tuple(flow.parser.get_parsed_content("class_names")) == PLANE_NAMES


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_formatted_as_the_zoo_formats_them(bundle_dir, name):
    text = (bundle_dir / "configs" / name).read_text()
    assert text == json.dumps(json.loads(text), indent=4) + "\n"


@pytest.mark.parametrize(
    "name",
    ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf", *(f"configs/{c}" for c in CONFIGS)],
)
def test_every_file_of_a_bundle_is_there(bundle_dir, name):
    assert (bundle_dir / name).stat().st_size > 0


def test_inference_needs_nothing_but_monai(bundle_dir):
    assert "fetalkd" not in (bundle_dir / "configs" / "inference.json").read_text()


@pytest.mark.parametrize("config", ["inference.json", "train.json"])
def test_the_network_takes_and_gives_what_metadata_say(bundle_dir, config):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle_dir / "configs" / "metadata.json"),
        config_file=str(bundle_dir / "configs" / config),
        bundle_root=str(bundle_dir),
        device="cpu",
    )


def test_the_student_exports_to_torchscript(bundle_dir, trained, student, tmp_path):
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(trained / "models" / "model.pt"),
        meta_file=str(bundle_dir / "configs" / "metadata.json"),
        config_file=str(bundle_dir / "configs" / "inference.json"),
        key_in_ckpt="",
        input_shape=[1, 1, 32, 32],
        bundle_root=str(bundle_dir),
        network_def={**student["network_def"], "num_classes": 6},
    )
    frames = torch.rand(2, 1, 32, 32)
    assert torch.jit.load(tmp_path / "model.ts")(frames).shape == (2, 6)


def test_every_property_of_inference_and_evaluation_is_there(workflow, frames_dir, tmp_path):
    weights = str(tmp_path / "model.pt")
    torch.save(
        workflow("inference.json", kind="inference").parser.get_parsed_content("network_def").state_dict(), weights
    )
    for configs, dataset in ((("inference.json",), frames_dir), (("train.json", "evaluate.json"), None)):
        overrides = {"ckpt": weights, **({"dataset_dir": str(dataset)} if dataset else {})}
        flow = workflow(*configs, kind="inference", **overrides)
        flow.initialize()
        assert flow.check_properties() == []


def test_inference_writes_the_probabilities_that_the_network_gives(run, trained, student, frames_dir, workflow):
    folder = trained / "predictions"
    run(
        "inference.json",
        dataset_dir=str(frames_dir),
        ckpt=str(trained / "models" / "model.pt"),
        output_dir=str(folder),
        **student,
    )
    with (folder / "predictions.csv").open() as file:
        rows = {row[0]: [float(value) for value in row[1:]] for row in csv.reader(file)}
    assert len(rows) == len(list(frames_dir.glob("*.png")))
    flow = workflow("train.json")
    flow.initialize()
    network = flow.parser.get_parsed_content("student").eval()
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    for row in flow.parser.get_parsed_content("test#dataset").data:
        image = flow.parser.get_parsed_content("validate#preprocessing")(row)["image"]
        expected = network(image[None]).softmax(1)[0].tolist()
        assert rows[row["image"]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"dataset_dir": "/nowhere"}, "There are no frames"), ({"ckpt": "/nowhere/model.pt"}, "does not exist")],
)
def test_inference_without_frames_or_weights_says_so(run, frames_dir, tmp_path, overrides, message):
    given = {"dataset_dir": str(frames_dir), "ckpt": str(tmp_path / "model.pt"), **overrides}
    (tmp_path / "model.pt").touch()
    with pytest.raises(RuntimeError) as caught:
        run("inference.json", **given)
    assert message in str(caught.value.__cause__)


def test_evaluation_of_a_checkpoint_gives_the_figures_of_the_training_run(run, trained, capsys):
    run("train.json", "evaluate.json", overwrite=True)
    before, after = (
        json.loads((trained / "eval" / file / "metrics.json").read_text())["networks"][name]["metrics"]
        for file, name in ((".", "student, distilled"), ("evaluation", "student"))
    )
    assert after == before
    assert "| student " in capsys.readouterr().out


@pytest.mark.parametrize("split", ["training", "validation"])
def test_evaluation_takes_any_split(run, trained, split):
    run("train.json", "evaluate.json", split=split, overwrite=True)
    content = json.loads((trained / "eval" / "evaluation" / "metrics.json").read_text())
    assert content["split"] == split
    assert (content["networks"]["student"]["temperature"] is None) == (split == "validation")


def test_an_older_evaluation_is_replaced_on_request_only(run, trained):
    run("train.json", "evaluate.json", overwrite=True)
    with pytest.raises(RuntimeError) as caught:
        run("train.json", "evaluate.json")
    assert "metrics.json' is an older result" in str(caught.value.__cause__)


def test_checkpoints_are_evaluated_side_by_side(run, trained):
    models = trained / "models"
    checkpoints = {"distilled": str(models / "model.pt"), "from scratch": str(models / "baseline.pt")}
    run("train.json", "evaluate.json", checkpoints=checkpoints, overwrite=True)
    content = json.loads((trained / "eval" / "evaluation" / "metrics.json").read_text())
    together = json.loads((trained / "eval" / "metrics.json").read_text())["networks"]
    for name, network in content["networks"].items():
        assert network["metrics"] == together[f"student, {name}"]["metrics"]
    assert [(pair["first"], pair["second"]) for pair in content["comparisons"]] == [("distilled", "from scratch")]
