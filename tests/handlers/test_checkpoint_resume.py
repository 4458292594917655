"""A stage that is resumed ends as one that was not interrupted, whatever it keeps and however its loader is set."""

from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Events
from ignite.handlers import EarlyStopping, EMAHandler
from ignite.metrics import Accuracy
from monai.data import DataLoader, Dataset, IterableDataset, ShuffleBuffer, SmartCacheDataset
from monai.engines import SupervisedEvaluator
from monai.handlers import EarlyStopHandler, ValidationHandler, from_engine
from torch import nn
from torch.optim import lr_scheduler

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.handlers import ProgressLogger, StageCheckpoint, TrainingStage

from .stage import Stage, assert_same, interrupted, network, rows


@pytest.mark.parametrize("kind", [AttentionTransferTrainer, DistillationTrainer])
def test_an_adapter_in_the_loss_is_kept(tmp_path, kind):
    whole, resumed = interrupted(tmp_path, kind=kind)
    assert_same(whole.hint, resumed.hint)
    assert_same(whole.student, resumed.student)


def test_an_average_of_weights_is_kept(tmp_path):
    def average(stage):
        stage.ema = EMAHandler(stage.student, momentum=0.1)
        stage.ema.attach(stage.trainer)
        return {}

    whole, resumed = interrupted(tmp_path, prepare=average)
    assert_same(whole.ema.ema_model, resumed.ema.ema_model)


def test_whatever_is_named_is_kept(tmp_path):
    def scaler(stage):
        stage.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        stage.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: stage.scaler.update(_doubled(stage.scaler)))
        return {"my_scaler": stage.scaler}

    whole, resumed = interrupted(tmp_path, prepare=scaler)
    assert resumed.scaler.get_scale() == whole.scaler.get_scale() == 64


def _doubled(scaler):
    scaler.scale(torch.ones(1))  # a scale is made when first used
    return 2 * scaler.get_scale()


@pytest.mark.parametrize(
    ("loader", "arguments"),
    [
        (lambda d: DataLoader(d, batch_size=2, shuffle=True), {"epoch_length": 3}),
        (lambda d: DataLoader(d, batch_size=2, shuffle=True), {"epoch_length": 6}),
        (lambda d: DataLoader(d, batch_size=2, shuffle=True, num_workers=2), {"epoch_length": 3}),
    ],
    ids=["shorter", "longer", "workers"],
)
def test_epochs_of_any_length_draw_the_same_batches(tmp_path, loader, arguments):
    whole, resumed = interrupted(tmp_path, loader=loader, **arguments)
    assert resumed.seen == {epoch: whole.seen[epoch] for epoch in (3, 4)}


def test_a_buffer_that_shuffles_a_stream_is_seeded(tmp_path):
    def stage(folder, **arguments):
        return Stage(
            folder,
            dataset=ShuffleBuffer(IterableDataset(rows()), buffer_size=4, seed=0, epochs=1),
            loader=lambda d: DataLoader(d, batch_size=2),
            **arguments,
        ).run()

    whole = stage(tmp_path / "whole")
    stage(tmp_path / "killed", kill=3)
    resumed = stage(tmp_path / "killed", resume=True)
    assert whole.seen[3] != whole.seen[4]
    assert resumed.seen == {epoch: whole.seen[epoch] for epoch in (3, 4)}


def test_persistent_workers_are_refused(tmp_path):
    def loader(dataset):
        return DataLoader(dataset, batch_size=2, num_workers=1, persistent_workers=True)

    with pytest.raises(ValueError, match="persistent_workers"):
        Stage(tmp_path, loader=loader).run()


def test_a_smart_cache_trains_and_is_not_resumed(tmp_path):
    def cache():
        return SmartCacheDataset(rows(), None, replace_rate=0.5, cache_num=4, num_init_workers=1, progress=False)

    Stage(tmp_path, kill=3, dataset=cache()).run()
    with pytest.raises(ValueError, match="SmartCacheDataset cannot be resumed"):
        Stage(tmp_path, dataset=cache(), resume=True).run()


def one_cycle(optimizer, steps):
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps + 1)


def cosine(optimizer, steps):
    return lr_scheduler.CosineAnnealingLR(optimizer, steps)


def in_sequence(optimizer, steps):
    warm_up = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2)
    return lr_scheduler.SequentialLR(optimizer, [warm_up, cosine(optimizer, steps - 2)], milestones=[2])


@pytest.mark.parametrize("schedule", [one_cycle, cosine, in_sequence])
@pytest.mark.parametrize(("first", "kill", "then"), [(4, 5, 6), (6, 3, 4), (4, 3, 4)], ids=["more", "fewer", "as many"])
def test_the_rate_is_that_of_the_epochs_asked_for_now(tmp_path, schedule, first, kill, then):
    Stage(tmp_path, first, kill=kill, schedule=schedule).run()
    resumed = Stage(tmp_path, then, resume=True, schedule=schedule).run()
    whole = Stage(tmp_path / "whole", then, schedule=schedule).run()
    assert resumed.trainer.state.epoch == then
    rates = [stage.optimizer.param_groups[0]["lr"] for stage in (resumed, whole)]
    assert math.isclose(*rates, rel_tol=1e-9, abs_tol=1e-12)


def test_settings_of_the_optimizer_are_those_asked_for_now(tmp_path):
    Stage(tmp_path, kill=3).run()
    resumed = Stage(tmp_path, resume=True)
    resumed.optimizer.param_groups[0]["weight_decay"] = 0.5
    schedule = resumed.trainer._event_handlers[Events.STARTED]
    (keeper,) = (h.__self__ for h, *_ in schedule if isinstance(getattr(h, "__self__", None), StageCheckpoint))
    keeper.schedule.__init__(resumed.optimizer, None)
    resumed.run()
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0.5


@pytest.mark.parametrize("by_monai", [False, True])
def test_a_stage_that_early_stopping_has_ended_is_finished(tmp_path, by_monai):
    def stop(stage):
        if by_monai:
            handler = EarlyStopHandler(2, lambda _: 0.0, trainer=stage.trainer)
            handler.attach(stage.trainer)
        else:
            handler = EarlyStopping(2, lambda _: 0.0, stage.trainer)
            stage.trainer.add_event_handler(Events.EPOCH_COMPLETED, handler)
        return {}

    assert list(Stage(tmp_path, 20, prepare=stop).run().seen) == [1, 2, 3]
    for _ in range(2):
        assert not Stage(tmp_path, 20, prepare=stop, resume=True).run().seen


def test_early_stopping_keeps_its_patience(tmp_path):
    def stop(stage):
        stage.trainer.add_event_handler(Events.EPOCH_COMPLETED, EarlyStopping(3, lambda _: 0.0, stage.trainer))
        return {}

    Stage(tmp_path, 20, prepare=stop, kill=3).run()
    assert list(Stage(tmp_path, 20, prepare=stop, resume=True).run().seen) == [3, 4]


def test_what_cannot_be_read_back_is_told_after_the_first_epoch(tmp_path):
    class Odd:
        def state_dict(self):
            return {"value": object()}

    stage = Stage(tmp_path, prepare=lambda _: {"odd": Odd()})
    with pytest.raises(ValueError, match="'odd'"):
        stage.run()
    assert stage.trainer.state.epoch == 1
    assert not list(tmp_path.glob("*_resume*"))


def test_reserved_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="model"):
        Stage(tmp_path, prepare=lambda _: {"model": nn.Linear(1, 1)})


def plateau(optimizer):
    return lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=0)


def test_a_schedule_that_follows_a_metric_is_stepped_with_it_and_kept(tmp_path):
    def run(folder, epochs, resume=False):
        student = network(4, 1)
        data = Dataset(rows())
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(data, batch_size=4),
            network=student,
            key_val_metric={"accuracy": Accuracy(output_transform=from_engine(["pred", "label"]))},
        )
        handlers = [
            ValidationHandler(1, evaluator),
            TrainingStage(
                "s", student, optimizer, plateau(optimizer), data, folder / "s.pt", folder, 0, evaluator, resume=resume
            ),
        ]
        trainer = DistillationTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=DataLoader(data, batch_size=4, shuffle=True),
            network=student,
            teacher=network(8, 2),
            optimizer=optimizer,
            train_handlers=handlers,
        )
        trainer.run()
        return student, optimizer.param_groups[0]["lr"]

    whole, rate = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    resumed, resumed_rate = run(tmp_path / "parts", 4, resume=True)
    assert rate < 0.1
    assert resumed_rate == rate
    assert_same(whole, resumed)


def test_a_schedule_that_follows_a_metric_needs_one(tmp_path):
    optimizer = torch.optim.SGD(network(4, 1).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="ReduceLROnPlateau"):
        TrainingStage("s", network(4, 1), optimizer, plateau(optimizer), [], tmp_path / "s.pt", tmp_path, 0)


def test_a_loader_of_unknown_length_has_progress(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from rows()

    stage = Stage(tmp_path, dataset=Stream(), loader=lambda d: torch.utils.data.DataLoader(d, batch_size=2))
    ProgressLogger("student", every=0).attach(stage.trainer)
    stage.run()
    assert stage.trainer.state.iteration == 16


def test_a_step_reads_its_losses_once(tmp_path):
    """Each ``item()`` of a tensor on a GPU would wait for it."""
    reads = []

    class Counting(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                reads.append(function)
            return function(*args, **(kwargs or {}))

    student, data = network(4, 1), Dataset(rows())
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    trainer = DistillationTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader(data, batch_size=4),
        network=student,
        teacher=network(8, 2),
        optimizer=optimizer,
        decollate=False,
        train_handlers=[TrainingStage("s", student, optimizer, None, data, tmp_path / "s.pt", tmp_path, 0)],
    )
    steps = []

    @trainer.on(Events.ITERATION_STARTED)
    def begin():
        steps.append(-len(reads))

    @trainer.on(Events.ITERATION_COMPLETED)
    def end():
        steps[-1] += len(reads)

    with Counting():
        trainer.run()
    assert max(steps) <= 1
