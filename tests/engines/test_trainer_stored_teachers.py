"""Stored targets of teachers that change, and stores that several stages share."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from ignite.handlers import EMAHandler
from monai.data import CacheDataset, DataLoader
from torch import nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.targets import FixedViews, TeacherTargets
from monai_fetalkd.teachers import LiveTeacher, TeacherEnsemble

from .make import assert_equal_weights, frames, network, run, transforms


class Wrapped(nn.Module):
    """A network with something of its own after it, which neither its text nor its weights show."""

    scale = 1.0

    def __init__(self, temperature=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.inside = network(8)
        self.temperature = temperature

    def forward(self, x):
        return self.inside(x) / self.temperature * self.scale


def trainer_of(teacher, folder=None, dtype="float32", epochs=3, student=None, **arguments):
    torch.manual_seed(7)
    student = network(4) if student is None else student
    views = FixedViews(CacheDataset(frames(), transforms(), progress=False), 1)
    return DistillationTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(views, batch_size=4),
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        targets=None if folder is None else TeacherTargets(folder, dtype),
        decollate=False,
        **arguments,
    )


def averaged(folder, student):
    average = EMAHandler(student, momentum=0.5)
    trainer = trainer_of(average.ema_model, folder, student=student)
    average.attach(trainer, name="ema_momentum", event=Events.ITERATION_COMPLETED)
    return trainer


def test_the_average_of_the_students_weights_teaches_live():
    trainer = averaged(None, network(4))
    targets = []
    ask = trainer.teacher.targets
    trainer.teacher.targets = lambda query: targets.append(ask(query)) or targets[-1]
    trainer.run()
    assert trainer.state.output["kd"] > 0
    assert not torch.equal(targets[0].logits, targets[2].logits)  # of the same batch, an epoch later


def test_the_average_of_the_students_weights_is_refused_with_stored_targets(tmp_path):
    with pytest.raises(ValueError, match="weights have changed.*leave targets out"):
        averaged(tmp_path, network(4)).run()


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("change_of", [lambda w: w.mul_(1.01), lambda w: w.copy_(w.flip(0)), lambda w: w.neg_()])
def test_weights_that_change_through_data_are_noticed_by_the_next_epoch(tmp_path, ensemble, change_of):
    net = network(8)
    trainer = trainer_of(TeacherEnsemble([network(8), net]) if ensemble else net, tmp_path, epochs=4)

    @trainer.on(Events.EPOCH_COMPLETED(once=2))
    def change():
        change_of(net[0].weight.data)

    with pytest.raises(ValueError, match="weights have changed"):
        trainer.run()
    assert trainer.state.epoch == 3


def folders(folder):
    return len(list(folder.iterdir()))


@pytest.mark.parametrize(
    "other",
    [
        Wrapped(temperature=1.001),
        LiveTeacher(Wrapped(), classes=[2, 0, 1]),
        LiveTeacher(Wrapped(), mean=0.01),
        LiveTeacher(Wrapped(), std=1.01),
        LiveTeacher(Wrapped(), spatial_size=(17, 16)),
        TeacherEnsemble([Wrapped(), Wrapped()]),
        TeacherEnsemble([Wrapped(), Wrapped()], weights=[1, 2]),
    ],
)
def test_a_teacher_of_other_settings_has_a_store_of_its_own(tmp_path, other):
    for teacher in (Wrapped(), LiveTeacher(Wrapped())):
        trainer_of(teacher, tmp_path, epochs=1).run()
        assert folders(tmp_path) == 1
    trainer_of(other, tmp_path, epochs=1).run()
    assert folders(tmp_path) == 2


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_changed_code_is_noticed_where_it_scales_the_logits_by_a_hundredth(tmp_path, monkeypatch, dtype):
    trainer_of(Wrapped(), tmp_path, dtype, epochs=1).run()
    monkeypatch.setattr(Wrapped, "scale", 1.01)
    with pytest.raises(ValueError, match="'logits' differs.*code"):
        trainer_of(Wrapped(), tmp_path, dtype, epochs=1).run()


class Bags(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.features = nn.Conv2d(1, width, 3)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        bags, frames = x.shape[:2]
        return self.head(self.features(x.flatten(0, 1)).mean((2, 3))).view(bags, frames, -1).mean(1)


def test_features_of_bags_are_compared_live_and_refused_for_a_store(tmp_path):
    def train(targets):
        student = Bags(4)
        rows = [{"image": torch.rand(3, 1, 16, 16), "label": index % 3} for index in range(4)]
        trainer = DistillationTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=DataLoader(FixedViews(CacheDataset(rows, transforms(), progress=False), 1), batch_size=2),
            network=student,
            teacher=Bags(8),
            optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
            student_layers=["features"],
            loss_function=DistillationLoss(feature_losses={"at": AttentionTransferLoss()}),
            targets=targets,
            decollate=False,
        )
        trainer.run()
        return trainer

    assert train(None).state.output["at"] > 0
    with pytest.raises(ValueError, match="layer 'features' has 6 rows for a batch of 2.*leave targets out"):
        train(TeacherTargets(tmp_path))


def needing(*layers):
    """A loss on the layers named, which knows the others of stage 1 but does not look at them now."""
    losses = {layer: AttentionTransferLoss(layers=[layer]) for layer in ("2", "4")}
    return DistillationLoss(feature_losses=losses, feature_weights={name: float(name in layers) for name in losses})


@pytest.mark.parametrize("layers", [[], ["4"]])
def test_stage_two_reads_the_store_of_a_stage_one_that_needed_more(tmp_path, layers):
    live, _ = run(loss_function=needing(*layers))
    run(tmp_path, AttentionTransferTrainer)
    stored, seen = run(tmp_path, loss_function=needing(*layers))
    assert len(seen.calls) == 1
    assert folders(tmp_path) == 1
    assert_equal_weights(stored, live)


@pytest.mark.parametrize("layers", [[], ["4"]])
def test_a_row_that_is_missing_is_computed_whole_for_those_that_need_more(tmp_path, layers):
    run(tmp_path, AttentionTransferTrainer, epochs=1)  # the first view of each frame
    _, seen = run(tmp_path, loss_function=needing(*layers))
    assert seen.calls == [1, 2, 2]  # one to compare, and the second views
    live, _ = run(kind=AttentionTransferTrainer)
    again, seen = run(tmp_path, AttentionTransferTrainer)
    assert len(seen.calls) == 1
    assert folders(tmp_path) == 1
    assert_equal_weights(again, live)


@pytest.mark.parametrize("loss", [DistillationLoss(), needing("4")])
def test_layers_that_no_loss_compares_are_not_stored(tmp_path, loss):
    layers = {"student_layers": ["1", "2", "4"], "loss_function": loss}
    live, _ = run(**layers)
    run(tmp_path, **layers)
    stored, seen = run(tmp_path, **layers)
    assert len(seen.calls) == 1
    assert_equal_weights(stored, live)


def test_a_folder_that_another_process_is_making_is_not_read(tmp_path):
    (tmp_path / "0123456789abcdef.part-01234567").mkdir()
    (tmp_path / "0123456789abcdef.part-01234567" / "manifest.json").write_text('{"dtype": ')
    run(tmp_path)
    _, seen = run(tmp_path)
    assert len(seen.calls) == 1


def test_a_damaged_manifest_is_named(tmp_path):
    run(tmp_path)
    (manifest,) = tmp_path.glob("*/manifest.json")
    manifest.write_text(manifest.read_text()[:-9])
    with pytest.raises(ValueError, match=f"{manifest}.*damaged.*delete"):
        run(tmp_path)
