"""An adapter in the loss on several ranks, and the wrapper around the student."""

from __future__ import annotations

import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel.distributed import _MixedPrecision

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.handlers import GlobalBatch
from monai_fetalkd.losses import DistillationLoss, FeatureLoss
from monai_fetalkd.utils.sampler import GlobalBatchSampler

from .make import frames


class Hint(nn.Module):
    def __init__(self):
        super().__init__()
        self.adapter = nn.Conv2d(4, 8, 1)

    def forward(self, student, teacher):
        return nn.functional.mse_loss(self.adapter(student), teacher)


def network(width):
    """Without normalisation over the batch, so that the size of a batch changes nothing."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2),
        nn.Tanh(),
        nn.Conv2d(width, width, 3, stride=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )


def learn(weight):
    """The weights of student and adapter after two epochs, as numpy arrays."""
    torch.manual_seed(0)
    student, teacher = network(4), network(8)
    loss = DistillationLoss(feature_losses={"hint": FeatureLoss(Hint())}, feature_weights={"hint": weight})
    data, ranks = CacheDataset(frames(8), Compose([]), progress=False), 1
    wrapped = student
    if torch.distributed.is_initialized():
        ranks, wrapped = torch.distributed.get_world_size(), DistributedDataParallel(student)
    rank = torch.distributed.get_rank() if ranks > 1 else 0
    sampler = GlobalBatchSampler(data, 4 // ranks, num_replicas=ranks, rank=rank)
    trainer = DistillationTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=DataLoader(data, batch_size=4 // ranks, sampler=sampler),
        network=wrapped,
        teacher=teacher,
        optimizer=torch.optim.SGD([*student.parameters(), *loss.parameters()], lr=0.5),
        student_layers=["3"],
        loss_function=loss,
        decollate=False,
    )
    GlobalBatch(student).attach(trainer)
    trainer.run()
    assert trainer.network is student
    return {name: value.detach().numpy() for module in (student, loss) for name, value in module.named_parameters()}


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_two_ranks_train_the_adapter_that_one_rank_trains(in_ranks, weight):
    expected = learn(weight)
    first, second = in_ranks(learn, weight)
    for name, value in expected.items():
        assert first[name] == pytest.approx(value, abs=1e-5), name
        assert (second[name] == first[name]).all(), name


SETTINGS = {
    "broadcast_buffers": False,
    "gradient_as_bucket_view": True,
    "find_unused_parameters": True,
    "bucket_cap_mb": 3,
    "static_graph": True,
    "skip_all_reduce_unused_params": True,
}


def settings_of(wrapper):
    kept = {name: getattr(wrapper, name) for name in SETTINGS.keys() - {"bucket_cap_mb"}}
    return {**kept, "bucket_cap_mb": wrapper.bucket_bytes_cap / 2**20, "process_group": wrapper.process_group}


def trainer_of(kind, wrapped):
    return kind(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.rand(4, 1, 16, 16), "label": torch.tensor([0, 1, 2, 0])}] * 3,
        network=wrapped,
        teacher=network(8),
        optimizer=torch.optim.SGD(wrapped.parameters(), lr=0.1),
        student_layers=["1"],
        decollate=False,
    )


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("names", [[], *([name] for name in SETTINGS), ["broadcast_buffers", "bucket_cap_mb"]])
@pytest.mark.parametrize("kind", [AttentionTransferTrainer, DistillationTrainer])
def test_the_wrapper_around_the_student_is_replaced_by_one_of_the_same_settings(kind, names):
    student = network(4)
    wrapped = DistributedDataParallel(student, **{name: SETTINGS[name] for name in names})
    trainer = trainer_of(kind, wrapped)
    expected = settings_of(wrapped)
    if kind is AttentionTransferTrainer:  # the layers after the last one tapped have no gradient
        expected["find_unused_parameters"] |= not wrapped.static_graph
    assert settings_of(trainer._step) == expected
    trainer.run()
    assert trainer.network is student
    assert torch.isfinite(trainer.state.output["loss"])


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("kind", [AttentionTransferTrainer, DistillationTrainer])
def test_a_communication_hook_works_on_the_gradients_of_the_task(kind):
    def without_gradients(state, bucket):
        state.append(bucket.index())
        exchanged = torch.futures.Future()
        exchanged.set_result(torch.zeros_like(bucket.buffer()))
        return exchanged

    wrapped, exchanges = DistributedDataParallel(network(4)), []
    wrapped.register_comm_hook(exchanges, without_gradients)
    before = [parameter.detach().clone() for parameter in wrapped.parameters()]
    trainer_of(kind, wrapped).run()
    assert len(exchanges) >= 3
    assert all(torch.equal(one, other) for one, other in zip(before, wrapped.parameters(), strict=True))


@pytest.mark.usefixtures("process_group")
def test_settings_of_the_wrapper_that_cannot_be_taken_over_are_refused():
    cast = DistributedDataParallel(network(4))
    cast.mixed_precision = _MixedPrecision(param_dtype=torch.bfloat16)  # given to it, it needs a stream, so a GPU
    with pytest.raises(ValueError, match="mixed_precision"):
        trainer_of(DistillationTrainer, cast)
    student = network(4)
    delayed = {
        "delay_all_reduce_named_params": [("0.weight", student[0].weight)],
        "param_to_hook_all_reduce": student[6].weight,
    }
    with pytest.raises(ValueError, match="delay_all_reduce_named_params"):
        trainer_of(DistillationTrainer, DistributedDataParallel(student, **delayed))
