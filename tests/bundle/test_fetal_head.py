"""The bundle of the fetal head on drawn ellipses: from training to a mask without torch."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow, verify_metadata, verify_net_in_out
from PIL import Image

from monai_fetalkd.__main__ import main
from monai_fetalkd.deployment.runtime import Segmenter
from monai_fetalkd.ultrasound.biometry import Ellipse, head_circumference
from monai_fetalkd.ultrasound.frames import read_frame

SHAPE = (108, 160)
TINY = {
    "threads": 1,
    "device": "cpu",
    "batch_size": 4,
    "teacher#network_def#channels": [4, 4, 8, 8, 8],
    "teacher#network_def#num_res_units": 1,
    "teacher#epochs": 1,
    "attention#epochs": 1,
    "train#epochs": 12,
}


def draw(generator, folder: Path, name: str) -> tuple[dict[str, str], Ellipse]:
    """A bright head in noise, and its mask of 0 and 255."""
    center = generator.uniform((45, 60), (60, 100))
    axes, angle = generator.uniform((30, 24), (38, 30)), generator.uniform(0, np.pi)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] - center[:, None, None]
    along, across = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    mask = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1
    pixels = np.where(mask, 180, 40) + generator.normal(0, 10, SHAPE)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    ellipse = Ellipse((center[0], center[1]), (axes[0], axes[1]), angle)
    return {"image": f"{name}.png", "label": f"{name}_mask.png"}, ellipse


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """The datalist, and the ellipses of the test frames."""
    folder, generator = tmp_path_factory.mktemp("heads"), np.random.default_rng(0)
    counts = {"training": 16, "validation": 2, "testing": 4}
    drawn = {split: [draw(generator, folder, f"{split}{n}") for n in range(count)] for split, count in counts.items()}
    path = folder / "datalist.json"
    path.write_text(json.dumps({split: [row for row, _ in rows] for split, rows in drawn.items()}))
    return path, {row["image"]: ellipse for row, ellipse in drawn["testing"]}


@pytest.fixture(scope="module")
def bundle(project_dir) -> Path:
    return project_dir / "bundles" / "fetal_head"


@pytest.fixture(scope="module")
def trained(bundle, heads, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder, hook = tmp_path_factory.mktemp("run"), sys.excepthook
    flow = ConfigWorkflow(
        str(bundle / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        bundle_root=str(bundle),
        output_dir=str(folder),
        dataset_dir=str(heads[0]),
        **TINY,
    )
    flow.initialize()
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    sys.excepthook = hook
    return folder


@pytest.fixture(scope="module")
def exported(bundle, heads, trained) -> Path:
    config, ckpt = bundle / "configs" / "train.json", trained / "models" / "model.pt"
    arguments = ["export", "--config_file", str(config), "--ckpt", str(ckpt), "--dataset_dir", str(heads[0])]
    assert main([*arguments, "--output_dir", str(trained / "export"), "--set", "quiet=true"]) == 0
    return trained / "export"


def test_form_of_the_zoo(bundle, shared_dir, tmp_path):
    meta, inference = bundle / "configs" / "metadata.json", bundle / "configs" / "inference.json"
    shutil.copy(shared_dir / "schemas" / "meta_schema_20240725.json", tmp_path / "schema.json")
    verify_metadata(meta_file=str(meta), filepath=str(tmp_path / "schema.json"))
    for path in (bundle / "configs").glob("*.json"):
        assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=4) + "\n", path
    verify_net_in_out(net_id="network_def", meta_file=str(meta), config_file=str(inference), device="cpu")
    assert "fetalkd" not in inference.read_text()
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt"):
        assert (bundle / name).is_file()


@pytest.mark.slow
def test_export_tells_dice_and_is_the_same_network(exported):
    content = json.loads((exported / "export.json").read_text())
    assert content["student.onnx"]["max_difference"] <= 1e-4
    assert content["student.onnx"]["mean_dice"] == pytest.approx(content["student.pt2"]["mean_dice"])
    assert content["student.onnx"]["mean_dice"] > 0.8


@pytest.mark.slow
def test_circumference_without_torch(exported, heads):
    segmenter = Segmenter(exported / "student.onnx", backend="onnxruntime")
    for name, ellipse in heads[1].items():
        mask = segmenter(read_frame(str(heads[0].parent / name)).pixels)
        assert mask.shape == SHAPE
        assert head_circumference(mask, 0.5) == pytest.approx(0.5 * ellipse.circumference, rel=0.15)


@pytest.mark.slow
def test_monai_alone_marks_the_same_head(bundle, exported, heads, trained, tmp_path):
    (tmp_path / "frames").mkdir()
    for name in heads[1]:
        shutil.copy(heads[0].parent / name, tmp_path / "frames")
    flow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(tmp_path / "frames"),
        output_dir=str(tmp_path / "out"),
        ckpt=str(trained / "models" / "model.pt"),
        device="cpu",
    )
    flow.initialize()
    assert flow.check_properties() == []
    flow.run()
    segmenter = Segmenter(exported / "student.onnx", backend="onnxruntime")
    for name in heads[1]:
        found = np.asarray(Image.open(tmp_path / "out" / f"{Path(name).stem}_seg.png"))
        expected = segmenter(read_frame(str(tmp_path / "frames" / name)).pixels)
        assert found.shape == SHAPE
        assert np.mean(found == expected) > 0.97  # one repeats pixels, the other interpolates


@pytest.mark.slow
def test_an_older_export_stays(bundle, exported, heads, trained, capsys):
    before = (exported / "student.onnx").read_bytes()
    config, ckpt = bundle / "configs" / "train.json", trained / "models" / "model.pt"
    arguments = ["export", "--config_file", str(config), "--ckpt", str(ckpt), "--dataset_dir", str(heads[0])]
    assert main([*arguments, "--output_dir", str(exported)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (exported / "student.onnx").read_bytes() == before
