"""The bundles of this repository as teachers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from PIL import Image

from monai_fetalkd.__main__ import main
from monai_fetalkd.bundle.distil.reading import build_network, checkpoint_path, network_definition, read_configs

pytestmark = pytest.mark.slow


def frames(folder: Path) -> Path:
    """A table of noise, brighter from class to class."""
    names = ["Other", "Fetal abdomen", "Fetal brain", "Fetal femur", "Fetal thorax", "Maternal cervix"]
    generator, rows = np.random.default_rng(0), ["image,label,split"]
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for label, name in enumerate(names * count):
            pixels = generator.integers(20 * label % 120, 20 * label % 120 + 60, (40, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{split}{label}.png")
            rows.append(f"{split}{label}.png,{name},{split}")
    (folder / "planes.csv").write_text("\n".join(rows))
    return folder / "planes.csv"


def heads(folder: Path) -> Path:
    """A datalist of bright squares in noise, and their masks of 0 and 255."""
    generator, lists = np.random.default_rng(0), {}
    for split, count in (("training", 8), ("validation", 2), ("testing", 2)):
        for index in range(count):
            mask = np.zeros((40, 48), np.uint8)
            mask[8:30, 10:40] = 255
            pixels = (mask / 2 + generator.integers(0, 60, mask.shape)).astype(np.uint8)
            row = {"image": f"{split}{index}.png", "label": f"{split}{index}-mask.png"}
            for key, values in (("image", pixels), ("label", mask)):
                Image.fromarray(values).save(folder / row[key])
            lists.setdefault(split, []).append(row)
    (folder / "datalist.json").write_text(json.dumps(lists))
    return folder / "datalist.json"


@pytest.mark.parametrize(
    ("bundle", "make", "metric", "sizes", "exported"),
    [
        ("bundle", frames, "accuracy", {"image_size": [64, 64], "num_workers": 0, "views": 2}, {"agreement": 0}),
        ("bundles/fetal_head", heads, "mean_dice", {"patch_size": [96, 96]}, {}),
    ],
)
def test_a_student_of_our_own_bundle_trains_infers_is_verified_and_exported(
    project_dir, shared_dir, tmp_path, bundle, make, metric, sizes, exported
):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    for part in ("configs", "LICENSE"):
        (shutil.copytree if part == "configs" else shutil.copy)(project_dir / bundle / part, teacher / part)
    train, inference = read_configs(teacher)
    weights = checkpoint_path(teacher, inference)
    weights.parent.mkdir(exist_ok=True)
    torch.save(build_network(network_definition(train, inference)).state_dict(), weights)
    before = sorted(teacher.rglob("*"))
    assert main(["init", str(student), "--teacher", str(teacher)]) == 0
    layers = train.value("layers")  # which the hand-written configs compare, and no others
    distil = json.loads((student / "configs" / "distill.json").read_text())["distil"]
    assert distil["student_layers"] == distil["teacher_layers"] == layers

    configs = [str(teacher / "configs" / "train.json"), str(student / "configs" / "distill.json")]
    (tmp_path / "data").mkdir()
    data = make(tmp_path / "data")
    flow = ConfigWorkflow(
        configs,
        workflow_type="train",
        logging_file=False,
        **{"bundle_root": str(student), "dataset_dir": str(data), "device": "cpu", "batch_size": 4, **sizes},
        **{"distil#distillation#epochs": 1, "distil#image_shape": [1, *next(iter(sizes.values()))]},
    )
    flow.initialize()
    flow.run()
    flow.finalize()
    table = json.loads((student / "eval" / "metrics.json").read_text())
    assert list(table) == ["teacher", "student, alone", "student, distilled"]
    assert all(math.isfinite(row["metrics"][metric]) for row in table.values())
    assert sorted(teacher.rglob("*")) == before

    flow = ConfigWorkflow(
        str(student / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        **{"bundle_root": str(student), "dataset_dir": str(tmp_path / "data"), "device": "cpu"},
        output_dir=str(tmp_path / "out"),
    )
    flow.initialize()
    flow.run()
    assert any((tmp_path / "out").iterdir())

    command = ["export", "--config_file", *configs, "--ckpt", str(student / "models" / "model.pt")]
    command += ["--output_dir", str(tmp_path / "exported"), "--dataset_dir", str(data)]
    settings = [f"{key}={json.dumps(value)}" for key, value in {"batch_size": 4, **sizes, **exported}.items()]
    assert main([*command, "--set", *settings]) == 0
    weights = torch.load(student / "models" / "model.pt", weights_only=True)
    size = sum(value.numel() for value in weights.values())
    assert 4 * size <= (tmp_path / "exported" / "student.onnx").stat().st_size < 8 * size + 2**18

    files = {name: str(student / "configs" / f"{name}.json") for name in ("metadata", "inference")}
    shutil.copy(shared_dir / "schemas" / "meta_schema_20240725.json", tmp_path / "schema.json")
    verify_metadata(meta_file=files["metadata"], filepath=str(tmp_path / "schema.json"))
    given = {"net_id": "network_def", "meta_file": files["metadata"], "config_file": files["inference"]}
    verify_net_in_out(**given, device="cpu", bundle_root=str(student))
    checkpoint = str(student / "models" / "model.pt")
    ckpt_export(**given, ckpt_file=checkpoint, filepath=str(tmp_path / "model.ts"), bundle_root=str(student))
    size = json.loads(Path(files["metadata"]).read_text())["network_data_format"]["inputs"]["image"]["spatial_shape"]
    assert torch.jit.load(tmp_path / "model.ts")(torch.rand(1, 1, *size)).shape[:2] == (1, len(table_of(student)))


def table_of(bundle: Path) -> dict[str, str]:
    """The classes of a bundle."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    return metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
