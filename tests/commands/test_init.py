"""The way from "my own network and data" to a distillation bundle, shown on a segmentation in 3-D."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import monai
import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.networks.nets import UNet

from monai_fetalkd.__main__ import main
from monai_fetalkd.bundle.process import told_plainly
from monai_fetalkd.bundle.spheres import make_spheres
from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.unlabelled import NO_LABEL

TINY = {
    "patch_size": [16, 16, 16],
    "threads": 1,
    "device": "cpu",
    "batch_size": 2,
    "teacher#network_def#channels": [4, 8, 16],
    "teacher#network_def#num_res_units": 1,
    "teacher#epochs": 1,
    "attention#epochs": 1,
    "train#epochs": 1,
    "at_weight": 0.1,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "spheres_segmentation"
    assert main(["init", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    return Path(make_spheres(tmp_path_factory.mktemp("volumes") / "spheres", train=4, val=2, test=2, size=16))


@pytest.fixture(autouse=True)
def as_it_was():
    """Undo what a run does to this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def workflow(bundle, config="train.json", kind="train", **overrides) -> ConfigWorkflow:
    return ConfigWorkflow(
        str(bundle / "configs" / config),
        workflow_type=kind,
        logging_file=False,
        **{"bundle_root": str(bundle), **(TINY if kind == "train" else {}), **overrides},
    )


def run(flow, run_id="run"):
    flow.run_id = run_id
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture(scope="module")
def trained(bundle, volumes, tmp_path_factory):
    """The folder of a finished run of tiny networks, and its workflow."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("monai_fetalkd"), "level", logging.INFO)  # as in a command
        return folder, run(workflow(bundle, dataset_dir=str(volumes), output_dir=str(folder)))


def test_one_run_trains_every_stage_and_compares_by_dice(trained):
    folder, _ = trained
    names = {"teacher.pt", "baseline.pt", "initial.pt", "attention.pt", "model.pt"}
    assert {path.name for path in (folder / "models").iterdir()} >= names
    content = json.loads((folder / "eval" / "metrics.json").read_text())
    assert list(content) == ["teacher", "student, from scratch", "student, distilled"]
    for row in content.values():
        assert 0 <= row["metrics"]["mean_dice"] <= 1
        assert len(row["metrics"]["dice_by_class"]) == 3  # without the background
        assert row["cost"]["parameters"] > 0
    assert "stage 1, attention" in (folder / "eval" / "log.txt").read_text()


def test_targets_are_per_voxel_and_attention_maps_are_volumes(trained):
    _, flow = trained
    get = flow.parser.get_parsed_content
    assert isinstance(flow.trainer, DistillationTrainer)
    assert isinstance(get("attention#trainer"), AttentionTransferTrainer)
    last, last_of_stage_1 = flow.trainer.state.output, get("attention#trainer").state.output
    assert set(last) >= {"loss", "ce", "kd", "at"}
    assert set(last_of_stage_1) >= {f"at_{layer}" for layer in get("layers")}
    assert last["pred"].shape[1:] == (4, 16, 16, 16)


def test_volumes_without_segmentation_teach_too(bundle, tmp_path):
    spheres = make_spheres(tmp_path / "spheres", train=4, val=2, test=2, size=16, unlabelled=6)
    rows = json.loads(Path(spheres).read_text())["unlabelled"]
    assert [set(row) for row in rows] == [{"image"}] * 6
    stages = ["@run_teacher", "@run_baseline", "@run_attention", "@run_distillation"]
    settings = {"run": stages, "patch_size": [20, 20, 20]}  # padded: not labels of background
    flow = workflow(bundle, dataset_dir=spheres, output_dir=str(tmp_path / "out"), **settings)
    flow.run_id = "run"
    flow.initialize()
    get = flow.parser.get_parsed_content
    counts: dict[str, set[int]] = {}
    for name in ("teacher", "baseline", "attention", "train"):
        get(f"{name}#trainer").add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine, name=name: counts.setdefault(name, set()).add(
                sum(bool((label == NO_LABEL).all()) for label in engine.state.output["label"])
            ),
        )
    flow.run()
    assert counts == {"teacher": {0}, "baseline": {0}, "attention": {1}, "train": {1}}
    assert get("train#trainer").state.iteration == 4  # a labelled volume in each batch of two


def test_every_property_that_monai_asks_for_is_there(trained):
    _, flow = trained
    assert flow.check_properties() == []


def test_the_student_segments_with_monai_alone(bundle, trained, volumes, tmp_path):
    folder, flow = trained
    (tmp_path / "in").mkdir()
    source = volumes.parent / "volumes" / "testing-000-image.nii.gz"
    turned = nibabel.load(source)  # stored the other way round, as scanners do: the result must lie on it all the same
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj)[::-1], affine), tmp_path / "in" / "case.nii.gz")
    overrides = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")}
    overrides |= {"ckpt": str(folder / "models" / "model.pt"), "patch_size": [16, 16, 16], "device": "cpu"}
    assert "fetalkd" not in (bundle / "configs" / "inference.json").read_text()
    inferred = workflow(bundle, "inference.json", "inference", **overrides)
    inferred.initialize()
    assert inferred.check_properties() == []
    inferred.run()
    result = nibabel.load(tmp_path / "out" / "case_seg.nii.gz")
    assert np.array_equal(result.affine, affine)
    network = flow.parser.get_parsed_content("student").eval()
    item = flow.parser.get_parsed_content("validate#preprocessing")(
        {"image": str(source), "label": str(source).replace("image", "label")}
    )
    with torch.no_grad():
        expected = network(item["image"][None]).argmax(1)[0].numpy()
    assert np.array_equal(np.asarray(result.dataobj)[::-1], expected)


def test_the_bundle_has_the_form_of_the_zoo(bundle, shared_dir, tmp_path):
    meta = bundle / "configs" / "metadata.json"
    shutil.copy(shared_dir / "schemas" / "meta_schema_20240725.json", tmp_path / "schema.json")
    verify_metadata(meta_file=str(meta), filepath=str(tmp_path / "schema.json"))
    for path in (bundle / "configs").glob("*.json"):
        assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=4) + "\n", path
    verify_net_in_out(
        net_id="network_def", meta_file=str(meta), config_file=str(bundle / "configs" / "inference.json"), device="cpu"
    )


def own(folder: Path, classes: int = 2) -> Path:
    """Volumes of a user, of several sizes and with classes of their own."""
    generator = np.random.default_rng(0)
    datalist: dict = {"training": [], "validation": [], "testing": []}
    for split, rows in datalist.items():
        for index in range(2):
            label = (generator.random((14, 18, 20 + 4 * index)) > 0.7) * (classes - 1)
            row = {"image": f"{split}{index}.nii.gz", "label": f"{split}{index}-seg.nii.gz"}
            for key, voxels in (("image", label + generator.normal(0, 0.1, label.shape)), ("label", label)):
                nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4)), folder / row[key])
            rows.append(row)
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder / "datalist.json"


def test_ones_own_volumes_classes_and_networks_take_their_place(bundle, tmp_path):
    """What the README of the bundle says to change, changed."""
    mine = tmp_path / "organ_segmentation"
    shutil.copytree(bundle / "configs", mine / "configs")
    path = mine / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    output = metadata["network_data_format"]["outputs"]["pred"]
    output.update(num_channels=2, channel_def={"0": "background", "1": "organ"})
    path.write_text(json.dumps(metadata))
    path = mine / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"] = {"_target_": "SegResNet", "spatial_dims": 3, "init_filters": 8, "blocks_down": [1, 1]}
    config["network_def"] |= {"blocks_up": [1], "in_channels": 1, "out_channels": 2}
    path.write_text(json.dumps(config))
    flow = workflow(
        mine, dataset_dir=str(own(tmp_path)), layers=["down_layers.1"], teacher_layers=["model.1.submodule.0"]
    )
    run(flow)
    assert isinstance(flow.trainer.network, monai.networks.nets.SegResNet)
    assert isinstance(flow.trainer.teacher.network, UNet)
    metrics = json.loads((mine / "eval" / "metrics.json").read_text())["teacher"]["metrics"]
    assert metrics["dice_by_class"] == pytest.approx(metrics["mean_dice"])  # there is one class beside the background


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"dataset_dir": "/nowhere/list.json"}, "/nowhere/list.json does not exist"),
        ({"bundle_root": "/nowhere"}, "There is no config '/nowhere/configs/inference.json'"),
        ({"layers": ["model.9"]}, "no layer 'model.9' in UNet; near names"),
        ({"class_names": ["background", "dim"]}, "holds .*, but the class table has the numbers 0 to 1"),
        ({"teacher#network_def#out_channels": 3}, r"The teacher gives logits of shape \(1, 3, 16, 16, 16\)"),
        ({"run_id": "run_attention"}, r"The checkpoint '.*teacher\.pt' does not exist"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(bundle, volumes, tmp_path, capsys, overrides, sentence):
    given = {"dataset_dir": str(volumes), "output_dir": str(tmp_path), **overrides}
    run_id = given.pop("run_id", "run")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the sentence is checked below
        run(workflow(bundle, **given), run_id)
    capsys.readouterr()
    told_plainly(caught.type, caught.value, caught.tb)
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert re.search(sentence, told), told
    assert not (tmp_path / "models" / "model.pt").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert main(["init", str(tmp_path / "mine")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_folder_is_not_made_out_of_nothing(tmp_path, capsys):
    assert main(["init", str(tmp_path / "no" / "where")]) == 1
    assert "does not exist: make it first" in capsys.readouterr().err
