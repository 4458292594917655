"""Two ranks learn what one rank learns from the same global batches."""

from __future__ import annotations

import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.transforms import Compose
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.handlers import GlobalBatch, loss_parts
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.networks import student_resnet
from monai_fetalkd.targets import FixedViews, TeacherTargets
from monai_fetalkd.utils.sampler import GlobalBatchSampler

CLASSES = ["abdomen", "brain", "femur"]
BATCH = 4  # of all ranks together


def plain_network(width: int, seed: int) -> nn.Sequential:
    """Its normalisation does not depend on the batch."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1),
        nn.GroupNorm(2, width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, len(CLASSES)),
    )


def frames(count):
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, 16, 16, generator=generator), "label": index % 3} for index in range(count)]


def dataset(count):
    return CacheDataset(frames(count), Compose([]), progress=False)


def wrapped(network, **arguments):
    return DistributedDataParallel(network, **arguments) if torch.distributed.is_initialized() else network


def make_trainer(kind, network, loader, optimizer, **arguments):
    common = {
        "device": "cpu",
        "max_epochs": 2,
        "train_data_loader": loader,
        "optimizer": optimizer,
        "decollate": False,
        **arguments,
    }
    if kind == "labels":
        return SupervisedTrainer(network=wrapped(network), loss_function=nn.CrossEntropyLoss(), **common)
    teacher = plain_network(8, seed=1)
    if kind == "stage 1":
        return AttentionTransferTrainer(
            network=wrapped(network, find_unused_parameters=True),
            teacher=teacher,
            student_layers=["2", "4"],
            logits=False,
            **common,
        )
    loss = DistillationLoss(ce_weight=0.3, feature_losses={"at": AttentionTransferLoss()})
    return DistillationTrainer(
        network=wrapped(network), teacher=teacher, student_layers=["2", "4"], loss_function=loss, **common
    )


def learn(kind, count, folder=None):
    """Gradients and loss parts of every step, and the weights in the end, as numpy arrays."""
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    rank = torch.distributed.get_rank() if ranks > 1 else 0
    views = dataset(count) if folder is None else FixedViews(dataset(count), views=2)
    sampler = GlobalBatchSampler(views, BATCH // ranks, num_replicas=ranks, rank=rank)
    loader = DataLoader(views, batch_size=BATCH // ranks, sampler=sampler)
    network = plain_network(4, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    targets = {} if folder is None else {"targets": TeacherTargets(folder, dtype="float32")}
    trainer = make_trainer(kind, network, loader, optimizer, **targets)
    GlobalBatch(network).attach(trainer)
    steps = []

    @trainer.on(IterationEvents.BACKWARD_COMPLETED)
    def _note(engine):
        gradients = {
            name: None if parameter.grad is None else parameter.grad.numpy().copy()
            for name, parameter in network.named_parameters()
        }
        parts = {
            key: value for key, value in loss_parts(engine.state.output).items() if key in ("loss", "ce", "kd", "at")
        }
        steps.append((gradients, parts))

    trainer.run()
    return steps, {name: value.numpy() for name, value in network.state_dict().items()}


def assert_close(found, expected, tolerance):
    for name, value in expected.items():
        if value is None:  # stage 1 leaves out what comes after the last tapped layer
            assert found[name] is None
        else:
            assert abs(value).max() > 0
            assert found[name] == pytest.approx(value, abs=tolerance), name


@pytest.mark.parametrize("kind", ["labels", "stage 1", "stage 2"])
@pytest.mark.parametrize("count", [8, 10, 11], ids=["no rest", "a last batch of 1 + 1", "a last batch of 2 + 1"])
def test_two_ranks_have_the_gradients_and_losses_of_one_with_the_same_global_batch(in_ranks, kind, count):
    steps, weights = learn(kind, count)
    for other_steps, other_weights in in_ranks(learn, kind, count):
        assert len(other_steps) == len(steps) == 2 * -(-count // BATCH)
        for (gradients, parts), (other_gradients, other_parts) in zip(steps, other_steps, strict=True):
            assert_close(other_gradients, gradients, 1e-5)
            assert other_parts == pytest.approx(parts, abs=1e-5)
        assert_close(other_weights, weights, 1e-4)


@pytest.mark.parametrize("kind", ["stage 1", "stage 2"])
def test_ranks_share_the_stored_targets_of_the_teacher(in_ranks, kind, tmp_path):
    steps, _ = learn(kind, 11, tmp_path / "one")
    (first, _), (second, _) = in_ranks(learn, kind, 11, tmp_path / "two")
    for (gradients, _), (other, _), (same, _) in zip(steps, first, second, strict=True):
        assert_close(other, gradients, 1e-5)
        assert_close(same, other, 0)
    assert [path.name for path in (tmp_path / "one").iterdir()] == [path.name for path in (tmp_path / "two").iterdir()]


def buffers_after_an_epoch():
    torch.manual_seed(0)
    network = student_resnet(2, (1, 1, 1, 1), num_classes=len(CLASSES))
    loader = DataLoader(data := dataset(8), batch_size=2, sampler=GlobalBatchSampler(data, 2))
    trainer = make_trainer("labels", network, loader, torch.optim.SGD(network.parameters(), lr=0.1))
    GlobalBatch(network).attach(trainer)
    trainer.run()
    return {name: buffer.numpy() for name, buffer in network.named_buffers()}


def test_ranks_validate_a_network_with_the_batch_statistics_of_the_first(in_ranks):
    first, second = in_ranks(buffers_after_an_epoch)
    assert any(abs(buffer).max() > 0 for buffer in first.values())
    for name, buffer in first.items():
        assert (second[name] == buffer).all(), name
