"""Fetal head on HC18: students of few labelled frames under a teacher of many. Protocol: ``docs/segmentation.md``.

    python benchmarks/fetal_head.py train --data hc18 --output runs/fetal_head
    python benchmarks/fetal_head.py validation --data hc18 --output runs/fetal_head
"""

from __future__ import annotations

import argparse
import csv
from functools import partial
from pathlib import Path

import numpy as np
import torch
from dense_study import BASELINE, Arm, Cases, LabelledCases, Task, run, validation_table
from monai.metrics import compute_dice
from monai.networks.nets import UNet
from monai.networks.utils import one_hot
from PIL import Image
from torch import Tensor
from torch.nn import functional

from monai_fetalkd.losses import (
    AttentionTransferLoss,
    ChannelWiseLoss,
    DistillationLoss,
    IntraClassLoss,
    RegionAffinityLoss,
    SoftDiceLoss,
)
from monai_fetalkd.ultrasound.biometry import head_circumference

SIZE = (64, 96)
DECODER = ["model.1.submodule.2", "model.1.submodule.1.submodule.2"]
BOTTOM = "model.1.submodule.1.submodule.1.submodule.1.submodule"

distillation = partial(DistillationLoss, label_loss=LabelledCases())


def soft_targets(**features: torch.nn.Module) -> DistillationLoss:
    """Labels, soft targets and features."""
    weights = {name: {"rad": 1.0, "ifvd": 10.0}[name] for name in features}
    return distillation(temperature=2.0, feature_losses=features, feature_weights=weights)


ARMS = {
    BASELINE: Arm(unlabelled=False),
    "soft targets, labelled frames": Arm(soft_targets, unlabelled=False),
    "soft targets": Arm(soft_targets),
    "soft Dice": Arm(lambda: distillation(soft_target_loss=SoftDiceLoss())),
    "channel-wise": Arm(lambda: distillation(kd_weight=3.0, soft_target_loss=ChannelWiseLoss(4.0))),
    "two stages": Arm(soft_targets, attention=AttentionTransferLoss, attention_layers=[*DECODER, BOTTOM]),
    "soft targets, region affinity": Arm(lambda: soft_targets(rad=RegionAffinityLoss(num_classes=2)), layers=DECODER),
    "soft targets, intra-class": Arm(lambda: soft_targets(ifvd=IntraClassLoss(num_classes=2)), layers=DECODER),
    "all labels": Arm(unlabelled=False, all_labels=True),
}


def network(channels: tuple[int, ...], units: int) -> UNet:
    """A U-Net of five levels."""
    return UNet(2, 1, 2, channels, [2] * (len(channels) - 1), num_res_units=units, norm="batch")


def load(folder: Path) -> Cases:
    """All frames, reduced by averaging to the input size of the networks."""
    rows = list(csv.DictReader((folder / "heads.csv").open()))

    def read(key: str) -> Tensor:
        pictures = (np.asarray(Image.open(folder / row[key]).convert("L")).copy() for row in rows)
        return torch.cat(
            [functional.interpolate(torch.from_numpy(picture)[None, None] / 255, SIZE, mode="area") for picture in pictures]
        )

    return Cases(read("image"), (read("mask") >= 0.5).to(torch.uint8), rows)


def augment(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Flip, rotate, zoom and shift; then contrast, brightness and noise of the image."""
    count = len(batch["image"])

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high, generator=generator)

    angle, zoom = uniform(-0.5, 0.5), uniform(0.8, 1.25)
    aspect = SIZE[0] / SIZE[1]
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [
            torch.stack([cos * flip, -sin * aspect, uniform(-0.2, 0.2)], dim=1),
            torch.stack([sin / aspect * flip, cos, uniform(-0.2, 0.2)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, [count, 1, *SIZE], align_corners=False)
    moved = dict(batch)
    moved["image"] = functional.grid_sample(batch["image"], grid, align_corners=False)
    label = functional.grid_sample(batch["label"].float(), grid, mode="nearest", align_corners=False)
    unlabelled = (batch["label"] == 255).flatten(1).all(dim=1)
    label[unlabelled] = 255.0
    moved["label"] = label.to(torch.uint8)
    if "teacher" in batch:
        moved["teacher"] = functional.grid_sample(batch["teacher"], grid, padding_mode="border", align_corners=False)
    gain, bias, gamma = (values[:, None, None, None] for values in (uniform(0.8, 1.2), uniform(-0.05, 0.05), uniform(0.7, 1.4)))
    noise = torch.randn(moved["image"].shape, generator=generator) * 0.03
    moved["image"] = ((moved["image"] * gain + bias).clamp(0, 1) ** gamma + noise).clamp(0, 1)
    return moved


def scores(logits: Tensor, cases: Cases, size: tuple[int, int] = (540, 800)) -> dict[str, np.ndarray]:
    """Scores of each frame, of masks brought back to the size of the frames."""
    masks = functional.interpolate(logits, size, mode="bilinear").argmax(dim=1).numpy().astype(bool)
    dice = compute_dice(one_hot(logits.argmax(dim=1, keepdim=True), 2), one_hot(cases.labels, 2), include_background=False)
    found = [
        head_circumference(mask, float(row["pixel_size_mm"])) for mask, row in zip(masks, cases.rows, strict=True)
    ]
    truth = np.array([float(row["head_circumference_mm"]) for row in cases.rows])
    error = np.array(found) - truth
    return {"dice": dice[:, 0].numpy(), "mm": np.abs(error), "signed_mm": error}


def main() -> None:
    """Train, or print the scores of the validation frames."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=["train", "validation"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    arguments = parser.parse_args()
    if arguments.action == "validation":
        print(validation_table(arguments.output))
        return
    task = Task(
        cases=load(arguments.data),
        teacher=partial(network, (16, 32, 64, 128, 256), 2),
        student=partial(network, (6, 12, 24, 48, 96), 0),
        augment=augment,
        arms=ARMS,
        scores=scores,
        batch_size=8,
        teacher_steps=500,
        student_steps=400,
        group=lambda row: row["exam_id"],
    )
    run(task, arguments.output, arguments.seeds, [40], arguments.arms)


if __name__ == "__main__":
    main()
