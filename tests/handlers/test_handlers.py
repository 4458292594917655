from __future__ import annotations

import logging
import operator

import numpy as np
import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Accuracy
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler, from_engine
from monai.transforms import Compose, RandGaussianNoised
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.handlers import NonFiniteLossGuard, StageCheckpoint, TrainingStage, WeightsLoader, loss_parts
from monai_fetalkd.networks import student_resnet

EPOCHS = 4


class Killed(BaseException):
    """Stands for a SIGKILL: no handler of exceptions in between may save anything."""


def frames(count=10):
    """Class 1 is brighter, so that there is something to learn."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(count):
        image = torch.from_numpy(generator.normal(index % 2, 1, (1, 16, 16)).astype(np.float32))
        rows.append({"image": image, "label": index % 2})
    return rows


def stage(folder, epochs=EPOCHS, name="student", distil=True, train=frames, **kwargs):
    torch.manual_seed(0)
    network, teacher = student_resnet(2, (1, 1, 1, 1), num_classes=2), student_resnet(4, (1, 1, 1, 1), num_classes=2)
    noisy = Compose([RandGaussianNoised("image", prob=0.9)])
    dataset = CacheDataset(train(), noisy, progress=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=3 * EPOCHS)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(CacheDataset(frames(6), Compose([]), progress=False), batch_size=3),
        network=network,
        key_val_metric={"accuracy": Accuracy(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=operator.ge,
    )
    handlers = [
        TrainingStage(
            name, network, optimizer, lr_scheduler, dataset, folder / f"{name}.pt", folder, 3, evaluator, **kwargs
        ),
        ValidationHandler(1, evaluator),
    ]
    return (DistillationTrainer if distil else SupervisedTrainer)(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(dataset, batch_size=4, shuffle=True),
        network=network,
        optimizer=optimizer,
        **({"teacher": teacher} if distil else {"loss_function": torch.nn.CrossEntropyLoss()}),
        train_handlers=handlers,
    )


def kill_in(trainer, event):
    @trainer.on(event)
    def kill():
        raise Killed

    with pytest.raises(Killed):
        trainer.run()


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    return all(torch.equal(value, twin) for (_, value), twin in pairs)


@pytest.mark.parametrize(
    "event",
    [Events.ITERATION_COMPLETED(once=1), Events.ITERATION_COMPLETED(once=8), Events.EPOCH_STARTED(once=3)],
    ids=["in the first epoch", "within a later epoch", "between epochs"],
)
def test_a_stage_killed_and_resumed_ends_as_one_that_was_not(tmp_path, event):
    whole = stage(tmp_path / "whole")
    whole.run()
    kill_in(stage(tmp_path / "killed"), event)
    resumed = stage(tmp_path / "killed", resume=True)
    resumed.run()
    assert same(resumed.network, whole.network)
    assert resumed.state.epoch == EPOCHS
    best = [torch.load(tmp_path / name / "student.pt", weights_only=True) for name in ("whole", "killed")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_a_finished_stage_does_not_train_again(tmp_path):
    finished = stage(tmp_path)
    finished.run()
    resumed = stage(tmp_path, resume=True)
    steps = []
    resumed.add_event_handler(Events.ITERATION_COMPLETED, lambda _: steps.append(1))
    resumed.run()
    assert not steps
    assert same(resumed.network, finished.network)


def test_without_resume_a_stage_starts_anew(tmp_path):
    stage(tmp_path).run()
    again = stage(tmp_path)
    steps = []
    again.add_event_handler(Events.ITERATION_COMPLETED, lambda _: steps.append(1))
    again.run()
    assert len(steps) == 3 * EPOCHS


def test_the_weights_on_disk_are_those_of_the_best_epoch(tmp_path):
    trainer = stage(tmp_path)
    history = []

    @trainer.on(Events.COMPLETED)
    def stop_collecting():
        history.append("done")

    evaluator = next(h for h in trainer._event_handlers[Events.EPOCH_COMPLETED] if _is_validation(h))[0].validator

    @evaluator.on(Events.COMPLETED)
    def collect():
        weights = {name: value.clone() for name, value in trainer.network.state_dict().items()}
        history.append((evaluator.state.metrics["accuracy"], weights))

    trainer.run()
    scores = [entry[0] for entry in history if entry != "done"]
    latest_best = max(epoch for epoch, score in enumerate(scores) if score == max(scores))
    saved = torch.load(tmp_path / "student.pt", weights_only=True)
    assert all(torch.equal(value, history[latest_best][1][name]) for name, value in saved.items())


def _is_validation(handler):
    return isinstance(handler[0], ValidationHandler)


def test_a_stage_starts_from_the_checkpoint_of_the_one_before(tmp_path):
    predecessor = student_resnet(2, (1, 1, 1, 1), num_classes=2)
    torch.save(predecessor.state_dict(), tmp_path / "attention.pt")
    trainer = stage(tmp_path, start_from=tmp_path / "attention.pt")
    started = []
    trainer.add_event_handler(
        Events.EPOCH_STARTED(once=1), lambda engine: started.append(same(engine.network, predecessor))
    )
    trainer.run()
    assert started == [True]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: stage(folder, start_from=folder / "attention.pt").run(), "attention.pt' does not exist"),
        (lambda folder: _resume_of_another_network(folder), "belongs to a run with other networks"),
        (lambda folder: _resume_of_more_epochs(folder), "stage of 4 epochs and cannot be resumed with max_epochs 2"),
    ],
)
def test_a_start_that_is_not_there_or_does_not_fit_is_named(tmp_path, prepare, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        prepare(tmp_path)


def _resume_of_another_network(folder):
    stage(folder).run()
    path = folder / "student_resume.pt"
    state = torch.load(path, weights_only=True)
    state["model"] = student_resnet(4, num_classes=2).state_dict()
    torch.save(state, path)
    stage(folder, resume=True).run()


def _resume_of_more_epochs(folder):
    stage(folder).run()
    stage(folder, epochs=2, resume=True).run()


def test_a_damaged_resume_file_is_named(tmp_path):
    stage(tmp_path, epochs=1).run()
    (tmp_path / "student_resume.pt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="student_resume.pt' cannot be read"):
        stage(tmp_path, resume=True).run()


def test_weights_loader_fills_the_teacher_when_the_run_starts(tmp_path):
    wise = student_resnet(4, (1, 1, 1, 1), num_classes=2)
    torch.save(wise.state_dict(), tmp_path / "teacher.pt")
    trainer = stage(tmp_path)
    WeightsLoader(trainer.teacher.network, tmp_path / "teacher.pt").attach(trainer)
    trainer.run()
    assert same(trainer.teacher.network, wise)


def test_a_loss_that_is_no_number_ends_the_run_before_it_spoils_the_weights(tmp_path):
    def spoilt():
        rows = frames()
        rows[0]["image"] = torch.full_like(rows[0]["image"], torch.nan)
        return rows

    trainer = stage(tmp_path, name="teacher", distil=False, train=spoilt)
    with pytest.raises(FloatingPointError, match=r"teacher: .*epoch 1, iteration \d+.*nan"):
        trainer.run()
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())
    assert not (tmp_path / "teacher.pt").exists()


def test_the_guard_names_every_part_of_the_loss():
    trainer = stage_free_trainer()
    NonFiniteLossGuard("stage 2").attach(trainer)
    with pytest.raises(FloatingPointError, match="stage 2: .*ce nan, kd nan"):
        trainer.run()


def stage_free_trainer():
    network, teacher = (student_resnet(2, (1, 1, 1, 1), num_classes=2) for _ in range(2))
    batch = {"image": torch.full((2, 1, 16, 16), torch.nan), "label": torch.tensor([0, 1])}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return DistillationTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=optimizer,
        teacher=teacher,
    )


def test_progress_tells_epoch_parts_metric_and_time_left(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "monai_fetalkd"):
        stage(tmp_path, name="stage 2").run()
    lines = [record.getMessage() for record in caplog.records if "epoch" in record.getMessage()]
    assert len(lines) == EPOCHS
    assert all(word in lines[1] for word in ("stage 2  epoch 2/4", "ce ", "kd ", "loss ", "accuracy ", " left"))


def test_progress_is_silent_at_a_higher_level(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "monai_fetalkd"):
        stage(tmp_path).run()
    assert not caplog.records


def test_tensorboard_gets_every_part_and_the_metric(tmp_path):
    stage(tmp_path).run()
    events = EventAccumulator(str(tmp_path / "student"))
    events.Reload()
    assert {"loss", "ce", "kd", "accuracy"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("kd")) == 3 * EPOCHS
    assert [point.step for point in events.Scalars("accuracy")] == [1, 2, 3, 4]


def test_loss_parts_reads_decollated_output_too():
    output = {"image": torch.zeros(1), "label": torch.tensor(1), "loss": torch.tensor(0.5), "at": torch.tensor(0.1)}
    assert loss_parts([output, output]) == loss_parts(output) == {"loss": 0.5, "at": pytest.approx(0.1)}


def test_checkpoint_alone_keeps_the_last_epoch_where_nobody_validates(tmp_path):
    network = student_resnet(2, (1, 1, 1, 1), num_classes=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    keeper = StageCheckpoint(
        network, tmp_path / "attention.pt", optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer)
    )
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=[{"image": torch.rand(2, 1, 16, 16), "label": torch.tensor([0, 1])}],
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.CrossEntropyLoss(),
        train_handlers=[keeper],
    )
    trainer.run()
    saved = torch.load(tmp_path / "attention.pt", weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
