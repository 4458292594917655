"""The examples of docs/losses.md run, and say the same in Python and in a config."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from monai.bundle import ConfigParser

import monai_fetalkd.losses
from monai_fetalkd.losses import DistillationLoss


def blocks(project_dir: Path, language: str) -> list[str]:
    text = (project_dir / "docs" / "losses.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_python_and_config_make_the_same_loss(project_dir):
    found: dict[str, DistillationLoss] = {}
    (python,), (config,) = blocks(project_dir, "python"), blocks(project_dir, "json")
    exec(python, found)
    parser = ConfigParser(json.loads(config))
    loss, schedule = (parser.get_parsed_content(name) for name in ("loss", "schedule"))
    assert str(loss) == str(found["loss"])
    assert loss.weights == found["loss"].weights
    assert [value.shape for value in loss.parameters()] == [torch.Size([64, 16, 1, 1, 1]), torch.Size([64])]
    assert schedule.loss is loss
    assert schedule.weight(6) == 2.5


def test_every_loss_has_its_paragraph(project_dir):
    text = (project_dir / "docs" / "losses.md").read_text(encoding="utf-8")
    missing = [name for name in monai_fetalkd.losses.__all__ if f"`{name}" not in text]
    assert missing == ["LabelLoss"]
