"""Training from stored targets of the teacher, against training with the teacher alive."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.networks.nets import UNet
from monai.transforms import RandFlipd
from torch import nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss, FeatureLoss
from monai_fetalkd.targets import FixedViews, TeacherTargets

from .make import assert_equal_weights, distillation_loss, make, run


@pytest.fixture(params=[AttentionTransferTrainer, DistillationTrainer])
def kind(request):
    return request.param


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_and_weights_are_bit_equal_to_those_of_a_live_teacher(kind, tmp_path, workers):
    live, seen_live = run(kind=kind)
    for calls in (4, 1):  # computed and stored; then read, but for the first batch of the run
        cached, seen = run(tmp_path, kind, workers=workers)
        assert len(seen.calls) == calls
        for image, expected in zip(seen.images, seen_live.images, strict=True):
            torch.testing.assert_close(image, expected, rtol=0, atol=0)
        assert_equal_weights(cached, live)
        assert cached.state.output["loss"] == live.state.output["loss"]


@pytest.mark.parametrize("attention", [{}, {"kind": "channel"}, {"power": 1}, {"power": 4, "mode": "norm"}])
def test_bytes_change_the_weights_by_little(tmp_path, attention):
    live, _ = run(loss_function=distillation_loss(**attention))
    cached, _ = run(tmp_path, dtype="uint8", loss_function=distillation_loss(**attention))
    assert_equal_weights(cached, live, rtol=0.01, atol=1e-3)


def test_bytes_give_the_same_weights_when_computed_and_when_read(tmp_path):
    computed, _ = run(tmp_path, dtype="uint8")
    read, _ = run(tmp_path, dtype="uint8")
    assert_equal_weights(read, computed)


@pytest.mark.parametrize(("views", "epochs_of_calls"), [(1, [1, 1]), (3, [1, 1, 2, 2, 3, 3]), (6, [*range(1, 7)] * 2)])
def test_the_teacher_runs_once_for_each_view(tmp_path, views, epochs_of_calls):
    _, seen = run(tmp_path, views=views, epochs=6)
    assert seen.calls == sorted(epochs_of_calls)


def test_a_trainer_with_targets_shows_the_views_in_turn_by_itself(tmp_path):
    trainer, seen = make(tmp_path, views=2, epochs=4, seeded=False)
    trainer.run()
    assert seen.calls == [1, 1, 2, 2]


def test_both_stages_share_one_store(tmp_path):
    run(tmp_path, AttentionTransferTrainer)
    _, seen = run(tmp_path, DistillationTrainer)
    assert len(seen.calls) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_soft_targets_alone_need_no_layers(tmp_path):
    settings = {"loss_function": DistillationLoss(), "student_layers": []}
    live, _ = run(**settings)
    for _ in range(2):
        cached, seen = run(tmp_path, **settings)
        assert_equal_weights(cached, live)
    assert len(seen.calls) == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_logits_of_every_voxel_are_stored(tmp_path, dims):
    def unet(channels):
        return UNet(dims, 1, 2, channels, strides=(2,) * (len(channels) - 1))

    def train(targets):
        torch.manual_seed(0)
        student, teacher = unet((4, 8)), unet((8, 16, 32))
        shape = (1, *(16,) * dims)
        rows = [{"image": torch.rand(shape), "label": torch.randint(2, shape)} for _ in range(4)]
        trainer = DistillationTrainer(
            device="cpu",
            max_epochs=2,
            train_data_loader=DataLoader(FixedViews(CacheDataset(rows, [RandFlipd("image")], progress=False), 1)),
            network=student,
            teacher=teacher,
            optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
            loss_function=distillation_loss(),
            student_layers=["model.0"],
            targets=targets,
        )
        trainer.run()
        return trainer

    assert_equal_weights(train(TeacherTargets(tmp_path, "float32")), train(None))


def test_a_damaged_row_is_computed_again(tmp_path):
    expected, _ = run(tmp_path, views=1)
    (rows,) = tmp_path.glob("*/rows.npy")
    data = bytearray(rows.read_bytes())
    data[-1] ^= 1
    rows.write_bytes(data)
    again, seen = run(tmp_path, views=1)
    assert_equal_weights(again, expected)
    assert len(seen.calls) <= 2
    assert rows.read_bytes()[-1] == data[-1] ^ 1


def _train_three_steps(folder, steps, never):
    trainer, _ = make(folder, views=2, epochs=2)

    @trainer.on(Events.ITERATION_COMPLETED)
    def wait():
        steps.put(trainer.state.iteration)
        if trainer.state.iteration == 3:
            never.wait()

    trainer.run()


def test_a_killed_run_leaves_what_it_has_stored_to_the_next(tmp_path, processes):
    steps, never = processes.Queue(), processes.Event()
    process = processes.Process(target=_train_three_steps, args=(str(tmp_path), steps, never))
    process.start()
    assert [steps.get(timeout=60) for _ in range(3)] == [1, 2, 3]
    process.kill()
    process.join()
    trainer, seen = run(tmp_path)
    assert seen.calls == [1, 2]  # the first batch of the run, and the one that was never reached
    assert_equal_weights(trainer, run()[0])


def _run_and_save(folder, path, barrier):
    barrier.wait()
    trainer, _ = run(folder, dtype="uint8")
    torch.save(trainer.network.state_dict(), path)


def test_processes_train_from_one_store_at_the_same_time(tmp_path, processes):
    barrier, paths = processes.Barrier(3), [tmp_path / f"{rank}.pt" for rank in range(3)]
    ranks = [processes.Process(target=_run_and_save, args=(tmp_path / "targets", path, barrier)) for path in paths]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    alone, _ = run(tmp_path / "alone", dtype="uint8")
    for path in paths:
        for name, value in torch.load(path).items():
            torch.testing.assert_close(value, alone.network.state_dict()[name], rtol=0, atol=0)
    assert len(list((tmp_path / "targets").iterdir())) == 1


def test_several_losses_on_whole_features_still_learn_from_a_live_teacher():
    losses = {"hint": FeatureLoss(nn.MSELoss()), "at": AttentionTransferLoss()}
    trainer, _ = run(teacher_width=4, loss_function=DistillationLoss(feature_losses=losses))
    assert {"hint", "at"} <= trainer.state.output.keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_stored_targets_reach_a_gpu(kind, tmp_path):
    live, _ = run(kind=kind, device="cuda")
    for calls in (4, 1):
        cached, seen = run(tmp_path, kind, device="cuda")
        assert len(seen.calls) == calls
        assert_equal_weights(cached, live, rtol=1e-4, atol=1e-5)
