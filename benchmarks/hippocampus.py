"""Hippocampus of the Medical Segmentation Decathlon: a student of 29 thousand parameters, a teacher of 1.1 million.

Protocol: ``docs/segmentation.md``.

python benchmarks/hippocampus.py train --data hippocampus --output runs/hippocampus
python benchmarks/hippocampus.py validation --data hippocampus --output runs/hippocampus
python benchmarks/hippocampus.py test --data hippocampus --output runs/hippocampus
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np
import torch
from dense_command import command
from dense_study import BASELINE, Arm, Cases, Task, distillation
from monai.metrics import compute_dice
from monai.networks.nets import UNet
from monai.networks.utils import one_hot
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    ResizeWithPadOrCropd,
    ScaleIntensityRangePercentilesd,
)
from torch import Tensor

from monai_fetalkd.losses import (
    AttentionTransferLoss,
    ChannelWiseLoss,
    FeatureLoss,
    IntraClassLoss,
    RegionAffinityLoss,
    SoftDiceLoss,
    SoftTargetLoss,
)

SIZE = (40, 56, 40)
LAYERS = ["model.1.submodule.1.submodule", "model.1.submodule.2"]

soft_targets = partial(distillation, kd_weight=10.0, soft_target_loss=SoftTargetLoss(1.0))
soft_dice = partial(distillation, kd_weight=10.0, soft_target_loss=SoftDiceLoss())

ARMS = {
    BASELINE: Arm(unlabelled=False),
    "soft targets, labelled cases": Arm(soft_targets, unlabelled=False),
    "soft targets": Arm(soft_targets),
    "soft Dice": Arm(soft_dice),
    "channel-wise": Arm(partial(distillation, kd_weight=0.3, soft_target_loss=ChannelWiseLoss(4.0))),
    "two stages": Arm(soft_targets, attention=AttentionTransferLoss, attention_layers=LAYERS),
    "two stages, soft Dice": Arm(soft_dice, attention=AttentionTransferLoss, attention_layers=LAYERS),
    "soft targets, region affinity": Arm(partial(soft_targets, rad=RegionAffinityLoss(num_classes=3)), layers=LAYERS),
    "soft targets, intra-class": Arm(
        partial(soft_targets, ifvd=FeatureLoss(IntraClassLoss(num_classes=3), layers=LAYERS[1:])), layers=LAYERS[1:]
    ),
}


def load(folder: Path) -> Cases:
    """All volumes, scaled by their percentiles and padded to one size."""
    keys = ["image", "label"]
    rows = list(csv.DictReader((folder / "cases.csv").open()))
    read = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            ScaleIntensityRangePercentilesd("image", 1, 99, 0.0, 1.0, clip=True),
            ResizeWithPadOrCropd(keys, SIZE),
        ]
    )
    found = [read({key: str(folder / row[key]) for key in keys}) for row in rows]
    images, labels = (torch.stack([case[key].as_tensor() for case in found]) for key in keys)
    return Cases(images.float(), labels.round().to(torch.uint8), rows)


def augment(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Flip from left to right and shift by whole voxels; then contrast, brightness and noise of the image."""
    count = len(batch["image"])
    shifts = torch.randint(-3, 4, (count, 3), generator=generator).tolist()
    flips = (torch.rand(count, generator=generator) < 0.5).tolist()

    def move(values: Tensor) -> Tensor:
        moved = (torch.roll(value, shift, dims=(1, 2, 3)) for value, shift in zip(values, shifts, strict=True))
        return torch.stack([value.flip(1) if flip else value for value, flip in zip(moved, flips, strict=True)])

    moved = {key: move(values) for key, values in batch.items()}
    gain, bias = torch.rand(2, count, 1, 1, 1, 1, generator=generator)
    noise = torch.randn(moved["image"].shape, generator=generator) * 0.03
    moved["image"] = moved["image"] * (0.8 + 0.4 * gain) + (bias - 0.5) * 0.1 + noise
    return moved


def scores(logits: Tensor, cases: Cases) -> dict[str, np.ndarray]:
    """Dice of each case: of both parts, and their mean."""
    parts = compute_dice(
        one_hot(logits.argmax(dim=1, keepdim=True), 3), one_hot(cases.labels, 3), include_background=False
    )
    return {"dice": parts.mean(dim=1).numpy(), "anterior": parts[:, 0].numpy(), "posterior": parts[:, 1].numpy()}


def network(channels: tuple[int, ...]) -> UNet:
    """A U-Net of as many levels as there are widths."""
    return UNet(3, 1, 3, channels, [2] * (len(channels) - 1), norm="batch")


def task(folder: Path) -> Task:
    """What is studied."""
    return Task(
        cases=load(folder),
        teacher=partial(network, (24, 48, 96, 192)),
        student=partial(network, (8, 16, 32)),
        augment=augment,
        arms=ARMS,
        scores=scores,
        test_scores=scores,
        batch_size=4,
        teacher_steps=2000,
        student_steps=1000,
        budgets=(20, 140),
        group="image",
    )


if __name__ == "__main__":
    command(task, __doc__)
