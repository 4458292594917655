"""Volumes, teachers that look at each voxel alone, and training from their soft labels."""

from __future__ import annotations

import torch
from monai.data import Dataset
from monai.transforms import (
    Compose,
    RandSpatialCropd,
    ScaleIntensityd,
)
from torch import nn

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.targets import SoftLabeld
from monai_fetalkd.teachers import Query

KEYS = ["image", "label", "soft_label"]


class Pointwise(nn.Module):
    """Looks at each voxel alone, so that its output moves with the voxel under crops and flips."""

    def __init__(self, dims: int, classes: int = 3, scale: float = 4.0) -> None:
        super().__init__()
        torch.manual_seed(classes)
        self.layer = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, classes, 1)
        self.layer.weight.data *= scale
        self._asked = 0

    def forward(self, inputs):
        self._asked += 1
        return self.layer(inputs)


def rows(dims: int, count: int = 3, size: int = 12) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, *[size + index] * dims) for index in range(count)]
    return [{"image": torch.rand(shape, generator=generator), "label": torch.zeros(shape)} for shape in shapes]


def trained(loader, teacher, student, epochs=2, seen=None, **more):
    trainer = DistillationTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        decollate=False,
        **more,
    )
    trainer.run()
    return trainer


def answered(teacher, batch):
    """What a teacher says of a batch."""
    query = Query(batch["image"], batch, lambda x, network: network(x), (), {}, True, {}, {}, dict, None)
    return teacher.targets(query)


def crops(folder, dims, random=(), data=None, kind=Dataset):
    crop = RandSpatialCropd(KEYS, [8] * dims, random_size=False)
    transform = Compose([ScaleIntensityd("image"), SoftLabeld("image", folder), *random, crop])
    return kind(rows(dims) if data is None else data, transform)
