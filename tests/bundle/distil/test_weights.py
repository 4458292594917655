"""From weights alone and a datalist to a bundle that distils them."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.networks.nets import UNet
from PIL import Image

from monai_fetalkd.__main__ import main
from monai_fetalkd.bundle.distil.config import Config
from monai_fetalkd.bundle.distil.reading import build_network
from monai_fetalkd.bundle.spheres import make_spheres

VOLUMES = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 4, "channels": [4, 8, 16]}
VOLUMES |= {"strides": [2, 2]}
PICTURES = VOLUMES | {"spatial_dims": 2, "out_channels": 2}
BASIC = {"_target_": "BasicUNet", "spatial_dims": 3, "out_channels": 4, "features": [2] * 6}


def pictures(folder: Path) -> Path:
    """Grey frames and their masks."""
    datalist: dict = {split: [] for split in ("training", "validation", "testing")}
    datalist["labels"] = {"0": "background", "1": "head"}
    generator = np.random.default_rng(0)
    for split, rows in datalist.items():
        if split == "labels":
            continue
        row = {"image": f"{split}.png", "label": f"{split}-seg.png"}
        Image.fromarray(generator.integers(0, 256, (40, 70), dtype=np.uint8)).save(folder / row["image"])
        Image.fromarray(generator.integers(0, 2, (40, 70), dtype=np.uint8)).save(folder / row["label"])
        rows.append(row)
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder / "datalist.json"


def planes(folder: Path, suffix: str = ".png", shape: tuple[int, ...] = (40, 70), unlabelled: bool = False) -> Path:
    """Images of two classes, the second of which is brighter."""
    folder.mkdir()
    datalist: dict = {"labels": {"0": "femur", "1": "brain"}}
    generator = np.random.default_rng(0)
    for split in ("training", "validation", "testing"):
        rows = datalist[split] = [{"image": f"{split}{label}{suffix}", "label": label} for label in (0, 1)]
        for row in rows:
            pixels = generator.integers(0, 100 + 150 * row["label"], shape, dtype=np.uint8)
            if suffix == ".png":
                Image.fromarray(pixels).save(folder / row["image"])
            else:
                nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), folder / row["image"])
    datalist["unlabelled"] = [{"image": row["image"]} for row in datalist["validation"]] if unlabelled else []
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder / "datalist.json"


@pytest.fixture
def files(tmp_path):
    """Everything that a teacher without a bundle needs."""
    definition = {key: value for key, value in PICTURES.items() if key != "_target_"}
    network = UNet(**definition)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "teacher.pt")
    torch.jit.script(network).save(tmp_path / "teacher.ts")
    (tmp_path / "network.json").write_text(json.dumps(PICTURES))
    (tmp_path / "student.json").write_text(json.dumps({"width": 2, "network_def": PICTURES | {"channels": [2, 4, 8]}}))
    pictures(tmp_path)
    return tmp_path


def init(folder: Path, **options: Path | str) -> int:
    return main(["init", str(folder), *(f"--{key}={value}" for key, value in options.items())])


def config(bundle: Path, name: str = "train") -> dict:
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


def run(bundle: Path, **overrides) -> dict:
    flow = ConfigWorkflow(
        str(bundle / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        **{"bundle_root": str(bundle), "device": "cpu", "threads": 1, "train#epochs": 1, **overrides},
    )
    flow.initialize()
    flow.run()
    flow.finalize()
    return json.loads((bundle / "eval" / "metrics.json").read_text())


def infer(bundle: Path, images: Path) -> list[Path]:
    flow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        **{"bundle_root": str(bundle), "device": "cpu", "dataset_dir": str(images)},
    )
    flow.initialize()
    flow.run()
    return list((bundle / "eval").glob("*_seg.nii.gz"))


def test_a_checkpoint_and_its_definition_teach_in_two_stages(tmp_path):
    datalist = Path(make_spheres(tmp_path / "spheres", train=2, val=1, test=1, size=32))
    network = ConfigParser(VOLUMES).get_parsed_content()
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    (tmp_path / "network.json").write_text(json.dumps(VOLUMES))
    given = {"teacher": tmp_path / "teacher.pt", "network": tmp_path / "network.json", "datalist": datalist}
    assert init(tmp_path / "small", **given) == 0
    assert config(tmp_path / "small", "inference")["network_def"]["channels"] == [2, 4, 8]
    table = run(tmp_path / "small", **{"attention#epochs": 1})
    assert list(table) == ["teacher", "student, from scratch", "student, distilled"]
    names = {path.name for path in (tmp_path / "small" / "models").iterdir()}
    assert {"initial.pt", "baseline.pt", "attention.pt", "model.pt"} <= names
    assert "teacher.pt" not in names


def test_torchscript_teaches_a_network_of_another_kind_by_its_outputs(files):
    given = {"teacher": files / "teacher.ts", "student": files / "student.json", "datalist": files / "datalist.json"}
    assert init(files / "small", **given) == 0
    table = run(files / "small")
    assert table["teacher"]["cost"]["parameters"] > table["student, distilled"]["cost"]["parameters"]
    assert all(math.isfinite(row["metrics"]["mean_dice"]) for row in table.values())
    assert not (files / "small" / "models" / "attention.pt").exists()
    metadata = config(files / "small", "metadata")["network_data_format"]
    assert metadata["inputs"]["image"]["spatial_shape"] == [64, 32]
    assert metadata["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "head"}
    (files / "new").mkdir()
    (files / "training.png").rename(files / "new" / "frame.png")
    assert len(infer(files / "small", files / "new")) == 1


@pytest.mark.parametrize(
    ("options", "definition", "size"),
    [
        ({}, {"_target_": "DenseNet121", "spatial_dims": 2}, [64, 32]),
        ({"unlabelled": True}, {"_target_": "DenseNet121", "spatial_dims": 2}, [64, 32]),
        ({"suffix": ".nii.gz", "shape": (40, 33, 32)}, {"_target_": "DenseNet121", "spatial_dims": 3}, [32, 32, 32]),
    ],
)
def test_a_classifier_teaches_from_a_datalist_of_class_numbers(tmp_path, shared_dir, options, definition, size):
    datalist = planes(tmp_path / "planes", **options)
    definition |= {"in_channels": 1, "out_channels": 2, "block_config": [1, 1], "init_features": 8}
    (tmp_path / "network.json").write_text(json.dumps(definition))
    torch.save(ConfigParser(definition).get_parsed_content().state_dict(), tmp_path / "teacher.pt")
    given = {"teacher": tmp_path / "teacher.pt", "network": tmp_path / "network.json", "datalist": datalist}
    assert init(tmp_path / "small", **given) == 0
    pred = config(tmp_path / "small", "metadata")["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"] == {"0": "femur", "1": "brain"}
    assert config(tmp_path / "small", "metadata")["network_data_format"]["inputs"]["image"]["spatial_shape"] == size
    table = run(tmp_path / "small", **{"attention#epochs": 1})
    assert table["teacher"]["cost"]["parameters"] > table["student, distilled"]["cost"]["parameters"]
    assert all(0 <= row["metrics"]["balanced_accuracy"] <= 1 for row in table.values())
    assert len(table["teacher"]["metrics"]["recall_by_class"]) == 2
    infer(tmp_path / "small", datalist.parent)
    rows = list(csv.reader((tmp_path / "small" / "eval" / "predictions.csv").open()))
    assert len(rows) == 6
    assert all(sum(map(float, row[1:])) == pytest.approx(1, abs=1e-3) for row in rows)

    metadata, inference = (str(tmp_path / "small" / "configs" / f"{name}.json") for name in ("metadata", "inference"))
    shutil.copy(shared_dir / "schemas" / "meta_schema_20240725.json", tmp_path / "schema.json")
    verify_metadata(meta_file=metadata, filepath=str(tmp_path / "schema.json"))
    given = {"net_id": "network_def", "meta_file": metadata, "config_file": inference}
    verify_net_in_out(**given, device="cpu", bundle_root=str(tmp_path / "small"))


@pytest.mark.parametrize(("name", "size"), [("UNETR", [64, 64]), ("SwinUNETR", [64, 32])])  # the second takes any
def test_a_transformer_gets_patches_of_the_size_that_its_definition_names(files, name, size):
    definition: dict = {"_target_": name, "in_channels": 1, "out_channels": 2, "img_size": [64, 64], "spatial_dims": 2}
    more = {"UNETR": {"hidden_size": 24, "num_heads": 2, "mlp_dim": 32, "feature_size": 4}}
    definition |= more.get(name, {"feature_size": 24})
    (files / "network.json").write_text(json.dumps({"network_def": definition}))
    network = build_network(Config(files / "network.json", files).component("network_def"))
    torch.save(network.state_dict(), files / "teacher.pt")
    given = {"teacher": files / "teacher.pt", "network": files / "network.json", "datalist": files / "datalist.json"}
    assert init(files / "small", **given) == 0
    assert config(files / "small", "metadata")["network_data_format"]["inputs"]["image"]["spatial_shape"] == size


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"datalist": None}, "--datalist"),
        ({"network": None}, "--network"),
        ({"datalist": "nowhere.json"}, "nowhere.json"),
        ({"network": "nowhere.json"}, "nowhere.json"),
        ({"teacher": "nowhere.ts"}, "nowhere.ts"),
        ({"teacher": "datalist.json"}, "datalist.json"),
        ({"teacher": "teacher.ts"}, "leave out --network"),
        ({"teacher": "teacher.ts", "network": None}, "--student"),
        ({"network": "datalist.json"}, "network_def"),
        ({"network": "wider.json"}, "teacher.pt"),
        ({"network": "foreign.json"}, "nowhere.Nothing"),
        ({"student": "more.json"}, "classes"),
        ({"student": "volumes.json"}, "student refuses"),
        ({"datalist": "two.json"}, "'validation'"),
        ({"datalist": "labels.json"}, "Number 1 of 'training'"),
        ({"datalist": "mixed.json"}, "Number 1 of 'validation'"),
        ({"datalist": "numbers.json"}, "class numbers"),
        ({"datalist": "missing.json"}, "nothing.png"),
        ({"datalist": "broken.json"}, "student.json"),
        ({"datalist": "names.json"}, "brain"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_and_nothing_written(files, capsys, options, told):
    row = {"image": "training.png", "label": "training-seg.png"}
    lists = {split: [row] for split in ("training", "validation", "testing")}
    contents = {
        "wider.json": PICTURES | {"channels": [8, 16, 32]},
        "foreign.json": {"_target_": "nowhere.Nothing"},
        "more.json": PICTURES | {"out_channels": 3},
        "volumes.json": VOLUMES | {"out_channels": 2},
        "two.json": {"training": [row], "testing": [row]},
        "labels.json": lists | {"training": [{"image": "training.png", "label": 0.5}]},
        "mixed.json": lists | {"validation": [{"image": "training.png", "label": 1}]},
        "numbers.json": {split: [{"image": "training.png", "label": 1}] for split in lists},
        "missing.json": lists | {"training": [row | {"image": "nothing.png"}]},
        "broken.json": lists | {"training": [row | {"image": "student.json"}]},
        "names.json": lists | {"labels": {"0": "background", "1": "head", "2": "brain"}},
    }
    for name, content in contents.items():
        (files / name).write_text(json.dumps(content))
    given = {"teacher": "teacher.pt", "network": "network.json", "datalist": "datalist.json", **options}
    before = sorted(files.iterdir())
    assert init(files / "small", **{key: files / name for key, name in given.items() if name is not None}) == 1
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, error
    assert told in lines[0]
    assert "Traceback" not in error
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("option", ["network", "datalist", "student"])
def test_files_need_a_teacher(files, capsys, option):
    assert init(files / "small", **{option: files / "network.json"}) == 1
    assert f"--{option}" in capsys.readouterr().err


def test_a_bundle_brings_its_own_network_and_data(files, capsys):
    (files / "bundle").mkdir()
    assert init(files / "small", teacher=files / "bundle", datalist=files / "datalist.json") == 1
    assert "--datalist" in capsys.readouterr().err
