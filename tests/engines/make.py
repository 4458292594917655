"""Trainers of tiny networks on fixed views, with or without stored targets."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandAffined, RandGaussianNoised
from torch import nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.handlers import EpochSeeder
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.targets import FixedViews, TeacherTargets

FRAMES, BATCH, CLASSES = 8, 4, 3


def network(width):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


def frames(count=FRAMES, size=(16, 16)):
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, *size, generator=generator), "label": i % CLASSES} for i in range(count)]


def transforms(noise=0.1):
    return Compose([RandAffined("image", prob=0.8, rotate_range=0.5), RandGaussianNoised("image", prob=1.0, std=noise)])


def attention_loss(**arguments):
    return AttentionTransferLoss(**arguments)


def distillation_loss(**arguments):
    return DistillationLoss(ce_weight=0.3, feature_losses={"at": AttentionTransferLoss(**arguments)})


def make(
    folder=None,
    kind=DistillationTrainer,
    dtype="float32",
    views=2,
    seed=0,
    epochs=2,
    rows=None,
    transform=None,
    teacher_seed=0,
    teacher_width=8,
    workers=0,
    seeded=True,
    device="cpu",
    **arguments,
):
    """A trainer, and what happened in it: images of each step, epochs of the teacher's calls."""
    torch.manual_seed(teacher_seed)
    teacher = network(teacher_width).to(device)
    torch.manual_seed(7)
    student = network(4).to(device)
    dataset = FixedViews(CacheDataset(rows or frames(), transform or transforms(), progress=False), views, seed)
    if kind is AttentionTransferTrainer:
        arguments.setdefault("loss_function", attention_loss())
    else:
        arguments.setdefault("loss_function", distillation_loss())
    trainer = kind(
        device=device,
        max_epochs=epochs,
        train_data_loader=DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers),
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        targets=None if folder is None else TeacherTargets(folder, dtype),
        decollate=False,
        **{"student_layers": ["2", "4"], **arguments},
    )
    if seeded:
        EpochSeeder(dataset, seed=3).attach(trainer)
    seen = SimpleNamespace(images=[], calls=[])
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.images.append(torch.as_tensor(engine.state.output["image"]))
    )
    teacher.register_forward_hook(lambda *_: seen.calls.append(trainer.state.epoch))
    return trainer, seen


def run(*args, **kwargs):
    trainer, seen = make(*args, **kwargs)
    trainer.run()
    return trainer, seen


def assert_equal_weights(one, other, **tolerance):
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(other.network.state_dict()[name], value, **(tolerance or {"rtol": 0, "atol": 0}))
