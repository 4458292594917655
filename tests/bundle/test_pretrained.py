from __future__ import annotations

import json

import pytest
import torch


def test_a_pretrained_teacher_is_fine_tuned_and_teaches_both_stages(run, bundle_dir, tmp_path):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.pth")
    overlay = json.loads((bundle_dir / "configs" / "pretrained.json").read_text())
    settings = {
        "teacher#network_def": overlay["+teacher"]["network_def"],  # in place of the tiny one of other tests
        "teacher_name": "test_efficientnet",
        "teacher_weights": str(tmp_path / "weights.pth"),
        "teacher_size": [64, 64],
        "layers": ["layer2", "layer3"],
    }
    run("train.json", "pretrained.json", **settings)
    networks = json.loads((tmp_path / "out" / "eval" / "metrics.json").read_text())["networks"]
    assert set(networks) >= {"teacher", "student, distilled"}
    tuned = torch.load(tmp_path / "out" / "models" / "teacher.pt", weights_only=True)
    stem = torch.load(tmp_path / "weights.pth", weights_only=True)["conv_stem.weight"].sum(1, keepdim=True)
    moved = (tuned["network.conv_stem.weight"] - stem).abs().max()
    assert 0 < moved < 0.1 * stem.abs().max()
