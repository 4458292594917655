"""The export of a network whose answers are known: what is brighter than half is head."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from PIL import Image
from torch import nn

from monai_fetalkd.deployment.export import SegmentationExport, segmentation
from monai_fetalkd.deployment.runtime import Segmenter
from monai_fetalkd.utils.checkpoints import save_weights

SIZE = (16, 16)


def bright() -> nn.Module:
    network = nn.Conv2d(1, 2, 1)
    network.weight.data = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
    network.bias.data = torch.tensor([0.5, -0.5])
    return network


@pytest.fixture
def export(tmp_path):
    """An export of two frames, half of each bright, with changes."""
    pixels = np.repeat([[200] * 8 + [20] * 8], 16, axis=0).astype(np.uint8)
    image = torch.from_numpy(pixels / np.float32(255))[None]
    rows = []
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        rows.append({"image": str(tmp_path / f"{name}.png"), "label": (image > 0.5).long()})
    save_weights(bright(), tmp_path / "model.pt")
    frames = Dataset(rows, transform=lambda row: {**row, "image": image})
    arguments = {
        "network": nn.Conv2d(1, 2, 1),
        "ckpt": tmp_path / "model.pt",
        "frames": frames,
        "loader": DataLoader(frames, batch_size=2),
        "class_names": ["background", "head"],
        "image_shape": (1, *SIZE),
        "output_dir": tmp_path / "export",
    }
    return lambda **changes: SegmentationExport(**{**arguments, **changes})


def test_the_files_hold_the_network_and_tell_what_they_were_made_of(export, tmp_path):
    content = export(version="1.2.0", settings={"seed": 3})()
    assert json.loads((tmp_path / "export" / "export.json").read_text()) == content
    digest = hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()
    assert (content["checkpoint_sha256"], content["settings"]) == (digest, {"seed": 3})
    for name in ("student.onnx", "student.pt2"):
        assert content[name]["max_difference"] <= 1e-4
        assert (content[name]["agreement"], content[name]["mean_dice"]) == (1, 1)
    segmenter = Segmenter(tmp_path / "export" / "student.onnx", backend="onnxruntime")
    assert segmenter.class_names == ("background", "head")
    assert segmenter(np.full(SIZE, 200.0)).all()
    assert (segmenter.metadata["version"], segmenter.metadata["checkpoint_sha256"]) == ("1.2.0", digest)


def test_an_older_export_stays_unless_it_may_be_replaced(export, tmp_path):
    export()()
    with pytest.raises(FileExistsError, match=r"student\.onnx, student\.pt2, export\.json"):
        export()()
    assert export(overwrite=True, version="2")()["version"] == "2"


def test_another_network_leaves_no_file(export, tmp_path, monkeypatch):
    monkeypatch.setattr(
        segmentation,
        "trace",
        lambda network, shape: torch.export.export(
            nn.Sequential(bright(), nn.Tanh()), (torch.rand(2, *shape),), dynamic_shapes=({0: torch.export.Dim("N")},)
        ),
    )
    with pytest.raises(ValueError, match=r"student\.onnx"):
        export()()
    assert list((tmp_path / "export").iterdir()) == []


def test_frames_that_the_runtime_prepares_otherwise_are_refused(export, tmp_path):
    frames = Dataset([{"image": str(tmp_path / "a.png")}], transform=lambda row: {"image": torch.zeros(1, *SIZE)})
    with pytest.raises(ValueError, match=r"a\.png"):
        export(frames=frames)()
