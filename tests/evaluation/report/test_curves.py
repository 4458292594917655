from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from monai_fetalkd.evaluation.report.curves import Curve, StageCurves, read_curves


def write(folder: Path, tag: str, points: dict[int, float], wall_time: float = 1.0) -> None:
    with SummaryWriter(str(folder), filename_suffix=f".{wall_time}") as writer:
        for step, value in points.items():
            writer.add_scalar(tag, value, step, walltime=wall_time + step / 100)


def test_stages_come_in_the_order_in_which_they_began(tmp_path):
    write(tmp_path / "a, trained second", "loss", {1: 0.5}, wall_time=200)
    write(tmp_path / "b, trained first", "loss", {1: 0.5}, wall_time=100)
    assert [stage.name for stage in read_curves(tmp_path)] == ["b, trained first", "a, trained second"]


def test_metrics_are_no_parts_of_the_loss_and_the_sum_comes_first(tmp_path):
    for tag in ("at", "loss", "accuracy", "macro_f1"):
        write(tmp_path / "stage", tag, {1: 0.25, 2: 0.75})
    (stage,) = read_curves(tmp_path, metrics={"accuracy", "macro_f1"})
    assert list(stage.losses) == ["loss", "at"]
    assert stage.accuracy.steps.tolist() == [1, 2]
    assert stage.accuracy.values.tolist() == [0.25, 0.75]


def test_a_resumed_run_replaces_the_values_from_its_first_step_on(tmp_path):
    write(tmp_path / "stage", "loss", {1: 1.0, 2: 2.0, 3: 3.0}, wall_time=10)
    write(tmp_path / "stage", "loss", {2: 20.0}, wall_time=20)
    (stage,) = read_curves(tmp_path)
    assert stage.losses["loss"].steps.tolist() == [1, 2]
    assert stage.losses["loss"].values.tolist() == [1.0, 20.0]


def test_all_steps_of_a_long_stage_are_read(tmp_path):
    write(tmp_path / "stage", "loss", dict.fromkeys(range(1, 12001), 0.5))
    (stage,) = read_curves(tmp_path)
    assert len(stage.losses["loss"].steps) == 12000


@pytest.mark.parametrize("folder", ["missing", "."])
def test_without_logs_there_are_no_stages(tmp_path, folder):
    assert read_curves(tmp_path / folder) == []


@pytest.mark.parametrize(
    ("block", "steps", "values"), [(1, [1, 2, 3, 4, 5], [1, 3, 5, 7, 9]), (2, [2, 5], [2, 7]), (9, [5], [5])]
)
def test_a_curve_is_averaged_over_blocks(block, steps, values):
    mean = Curve(np.arange(1, 6), np.array([1.0, 3.0, 5.0, 7.0, 9.0])).averaged(block)
    assert mean.steps.tolist() == steps
    assert mean.values.tolist() == pytest.approx(values)


def test_the_block_is_an_epoch_or_a_twentieth_of_the_stage():
    loss = Curve(np.arange(1, 61), np.ones(60))
    validated = Curve(np.array([2, 4, 6]), np.ones(3))
    assert StageCurves("", {"loss": loss}, validated).steps_per_block == 10
    assert StageCurves("", {"loss": loss}, None).steps_per_block == 3
