"""Fetal head on HC18: students of few labelled frames under a teacher of many. Protocol: ``docs/segmentation.md``.

python benchmarks/fetal_head.py train --data hc18 --output runs/fetal_head
python benchmarks/fetal_head.py validation --data hc18 --output runs/fetal_head
python benchmarks/fetal_head.py test --data hc18 --output runs/fetal_head
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from dense_command import command
from dense_study import BASELINE, Arm, Cases, Task, distillation
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.networks.nets import UNet
from monai.networks.utils import one_hot
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from monai_fetalkd.losses import (
    AttentionTransferLoss,
    ChannelWiseLoss,
    IntraClassLoss,
    RegionAffinityLoss,
    SoftDiceLoss,
)
from monai_fetalkd.ultrasound.biometry import head_circumference
from monai_fetalkd.unlabelled import NO_LABEL

SIZE = (64, 96)
MARGIN = 1.4  # pixels by which the published masks are wider than the published measurements
DECODER = ["model.1.submodule.2", "model.1.submodule.1.submodule.2"]
BOTTOM = "model.1.submodule.1.submodule.1.submodule.1.submodule"

CHANNEL_WISE = partial(distillation, kd_weight=3.0, soft_target_loss=ChannelWiseLoss(4.0))
ARMS = {
    BASELINE: Arm(unlabelled=False),
    "soft targets, labelled frames": Arm(distillation, unlabelled=False),
    "soft targets": Arm(distillation),
    "soft Dice": Arm(partial(distillation, soft_target_loss=SoftDiceLoss())),
    "channel-wise": Arm(CHANNEL_WISE),
    "two stages": Arm(distillation, attention=AttentionTransferLoss, attention_layers=[*DECODER, BOTTOM]),
    "two stages, channel-wise": Arm(CHANNEL_WISE, attention=AttentionTransferLoss, attention_layers=[*DECODER, BOTTOM]),
    "soft targets, region affinity": Arm(partial(distillation, rad=RegionAffinityLoss(num_classes=2)), layers=DECODER),
    "soft targets, intra-class": Arm(partial(distillation, ifvd=IntraClassLoss(num_classes=2)), layers=DECODER),
    "all labels": Arm(unlabelled=False, all_labels=True),
}


def network(channels: tuple[int, ...], units: int) -> UNet:
    """A U-Net of five levels."""
    return UNet(2, 1, 2, channels, [2] * (len(channels) - 1), num_res_units=units, norm="batch")


def load(folder: Path) -> Cases:
    """All frames, reduced by averaging to the input size of the networks."""
    rows = list(csv.DictReader((folder / "heads.csv").open()))
    for row in rows:  # a few frames are not of 800 x 540
        row["width"], row["height"] = map(str, Image.open(folder / row["image"]).size)

    def read(key: str) -> Tensor:
        pictures = (np.asarray(Image.open(folder / row[key]).convert("L")).copy() for row in rows)
        return torch.cat(
            [
                functional.interpolate(torch.from_numpy(picture)[None, None] / 255, SIZE, mode="area")
                for picture in pictures
            ]
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
    label[(batch["label"] == NO_LABEL).flatten(1).all(dim=1)] = NO_LABEL
    moved["label"] = label.to(torch.int16)
    if "teacher" in batch:
        moved["teacher"] = functional.grid_sample(batch["teacher"], grid, padding_mode="border", align_corners=False)
    gain, bias, gamma = (
        values[:, None, None, None] for values in (uniform(0.8, 1.2), uniform(-0.05, 0.05), uniform(0.7, 1.4))
    )
    noise = torch.randn(moved["image"].shape, generator=generator) * 0.03
    moved["image"] = ((moved["image"] * gain + bias).clamp(0, 1) ** gamma + noise).clamp(0, 1)
    return moved


def scores(logits: Tensor, cases: Cases) -> dict[str, np.ndarray]:
    """Scores of each frame: head circumference by the mask in the size of the frame, Dice in that of the network."""
    label = one_hot(cases.labels, 2)
    dice = compute_dice(one_hot(logits.argmax(dim=1, keepdim=True), 2), label, include_background=False)[:, 0]
    sizes = np.array([float(row["pixel_size_mm"]) for row in cases.rows])
    truth = np.array([float(row["head_circumference_mm"]) for row in cases.rows])
    found = [head_circumference(mask, size) for mask, size in zip(masks(logits, cases), sizes, strict=True)]
    error = np.nan_to_num(np.array(found)) - truth  # no head is a circumference of zero
    return {
        "mm": np.abs(error),
        "signed_mm": error,
        "corrected_mm": np.abs(error - 2 * np.pi * MARGIN * sizes),
        "dice": dice.numpy(),
    }


def test_scores(logits: Tensor, cases: Cases, folder: Path) -> dict[str, np.ndarray]:
    """Those, and the 95th percentile of the surface distance in mm."""
    distances = []
    for mask, row in zip(masks(logits, cases), cases.rows, strict=True):
        truth = np.asarray(Image.open(folder / row["mask"])) != 0
        pair = (torch.from_numpy(values)[None, None] for values in (mask, truth))
        distance = float(compute_hausdorff_distance(*pair, include_background=True, percentile=95))
        pixels = distance if np.isfinite(distance) else np.hypot(*truth.shape)  # where nothing is found, the diagonal
        distances.append(pixels * float(row["pixel_size_mm"]))
    return scores(logits, cases) | {"hd95_mm": np.array(distances)}


def masks(logits: Tensor, cases: Cases) -> Iterator[NDArray[np.bool_]]:
    """The mask of each frame, in its size."""
    for logit, row in zip(logits, cases.rows, strict=True):
        size = int(row["height"]), int(row["width"])
        yield functional.interpolate(logit[None], size, mode="bilinear")[0].argmax(dim=0).numpy().astype(bool)


def task(folder: Path) -> Task:
    """What is studied."""
    return Task(
        cases=load(folder),
        teacher=partial(network, (16, 32, 64, 128, 256), 2),
        student=partial(network, (6, 12, 24, 48, 96), 0),
        augment=augment,
        arms=ARMS,
        scores=scores,
        test_scores=partial(test_scores, folder=folder),
        batch_size=8,
        teacher_steps=2000,
        student_steps=4000,
        budgets=(40,),
        group="exam_id",
    )


if __name__ == "__main__":
    command(task, __doc__)
