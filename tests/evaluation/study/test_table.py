from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from monai_fetalkd.evaluation.scores.classification import scores
from monai_fetalkd.evaluation.scores.intervals import differences
from monai_fetalkd.evaluation.scores.predictions import Predictions, read_predictions
from monai_fetalkd.evaluation.study import Arm, Study, study_result, study_table

CLASSES = ("abdomen", "brain", "femur")
ARMS = {
    "teacher": Arm("teacher"),
    "soft": Arm("train", teacher="teacher"),
    "stage 1": Arm("attention", teacher="teacher", scored=False),
    "two": Arm("train", teacher="teacher", start_from="stage 1"),
}
STEPS = {"teacher": 9, "soft": 12, "stage 1": 2, "two": 10}
SKILL = {"teacher": 3.0, "soft": 0.5, "two": 2.0}


@pytest.fixture
def study():
    return Study(("train.json",), "bundle", ARMS, references=("soft", "teacher"), seeds=(0, 1), folds=3)


@pytest.fixture
def finish(tmp_path):
    """Writes what a finished cell leaves, of ten patients with two frames in each fold."""

    def write(cell, steps=STEPS, weights="same", repeats=1):
        cell.folder.mkdir(parents=True)
        for split in ("testing", "validation") if cell.scored else ():
            files = [f"{split}_{cell.fold}_{number}.png" for number in range(20)]
            labels = np.random.default_rng(cell.fold).integers(3, size=20)
            logits = np.random.default_rng([cell.fold, cell.seed, ord(cell.arm[0])]).normal(size=(20, 3))
            logits += SKILL[cell.arm] * np.eye(3)[labels]
            probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            groups = [f"{split}_{cell.fold}_{number // 2}" for number in range(20)]
            predictions = Predictions(CLASSES, files, labels, probabilities, groups, [""] * 20, [""] * 20)
            predictions.write(cell.predictions(split))
        result = {"steps": steps[cell.arm], "initial_weights": weights, "versions": {"torch": "2"}}
        cell.result.write_text(json.dumps(result))

    return write


def finish_all(study, finish, folder, **changes):
    cells = list(study.cells(folder))
    for cell in cells:
        finish(cell, **changes)
    return cells


def pooled(cells, arm, seed, split="testing"):
    tables = [read_predictions(cell.predictions(split)) for cell in cells if (cell.arm, cell.seed) == (arm, seed)]
    return (
        np.concatenate([table.labels for table in tables]),
        np.concatenate([table.probabilities for table in tables]),
    )


@pytest.mark.parametrize("split", ["testing", "validation"])
def test_figures_are_those_of_scikit_learn_on_the_pooled_folds(study, finish, tmp_path, split):
    cells = finish_all(study, finish, tmp_path)
    result = study_result(study, tmp_path, split=split, repeats=2)
    for arm in ("teacher", "soft", "two"):
        by_seed = [pooled(cells, arm, seed, split) for seed in (0, 1)]
        expected = {
            "accuracy": np.mean([accuracy_score(true, p.argmax(1)) for true, p in by_seed]),
            "balanced_accuracy": np.mean([balanced_accuracy_score(true, p.argmax(1)) for true, p in by_seed]),
            "macro_f1": np.mean([f1_score(true, p.argmax(1), average="macro") for true, p in by_seed]),
            "negative_log_likelihood": np.mean([log_loss(true, p) for true, p in by_seed]),
        }
        found = result["arms"][arm]["metrics"]
        assert {name: found[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-12)
        accuracies = [accuracy_score(true, p.argmax(1)) for true, p in by_seed]
        assert list(result["arms"][arm]["accuracy_by_seed"].values()) == pytest.approx(accuracies)


def test_figures_are_those_of_the_evaluation(study, finish, tmp_path):
    cells = finish_all(study, finish, tmp_path)
    found = study_result(study, tmp_path, arms=["soft"], seeds=[1], repeats=2)["arms"]["soft"]["metrics"]
    labels, probabilities = pooled(cells, "soft", 1)
    rows = [{"image": f"{number}.png", "label": label} for number, label in enumerate(labels)]
    expected = scores(Predictions.from_rows(CLASSES, rows, probabilities))
    assert {name: found[name]["value"] for name in found} == pytest.approx({name: expected[name] for name in found})


def test_differences_are_paired_as_those_of_the_evaluation(study, finish, tmp_path):
    cells = finish_all(study, finish, tmp_path)
    result = study_result(study, tmp_path, seeds=[0], repeats=50)
    tables = {}
    for arm in ("soft", "two"):
        labels, probabilities = pooled(cells, arm, 0)
        rows = [
            {"image": f"{number}.png", "label": label, "group": f"p{number // 2}"}
            for number, label in enumerate(labels)
        ]
        tables[arm] = Predictions.from_rows(CLASSES, rows, probabilities)
    expected = differences(tables["soft"], tables["two"], repeats=50)["accuracy"]
    found = result["arms"]["two"]["differences"]["soft"]["accuracy"]
    assert found == pytest.approx({"value": expected.value, "low": expected.low, "high": expected.high})


def test_equal_arms_differ_by_nothing_and_have_no_interval(study, finish, tmp_path):
    for cell in finish_all(study, finish, tmp_path):
        if cell.arm == "two":
            twin = cell.predictions("testing").read_bytes()
            (cell.folder.parent / "soft" / "testing.csv").write_bytes(twin)
    difference = study_result(study, tmp_path, repeats=50)["arms"]["two"]["differences"]["soft"]["accuracy"]
    assert difference == {"value": 0, "low": None, "high": None}


def test_steps_count_the_stage_before(study, finish, tmp_path):
    finish_all(study, finish, tmp_path)
    result = study_result(study, tmp_path, repeats=2)
    assert {name: arm["steps"]["low"] for name, arm in result["arms"].items()} == {"teacher": 9, "soft": 12, "two": 12}
    assert "All students" in study_table(result)


def test_students_that_were_not_trained_as_long_are_told(study, finish, tmp_path):
    finish_all(study, finish, tmp_path, steps=STEPS | {"two": 12})
    assert "All students" not in study_table(study_result(study, tmp_path, repeats=2))


def test_students_with_other_initial_weights_are_told(study, finish, tmp_path):
    finish_all(study, finish, tmp_path / "same")
    for cell in study.cells(tmp_path / "other"):
        finish(cell, weights=cell.arm)
    same, other = (study_table(study_result(study, tmp_path / name, repeats=2)) for name in ("same", "other"))
    assert "initial weights" not in same
    assert "initial weights" in other


def test_the_table_is_markdown_with_the_arms_in_order(study, finish, tmp_path):
    finish_all(study, finish, tmp_path)
    lines = study_table(study_result(study, tmp_path, repeats=20)).splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    assert header[:3] == ["arm", "steps", "accuracy"]
    assert header[-3:] == ["accuracy above soft", "accuracy above teacher", "accuracy by seed"]
    assert [row[0] for row in rows] == ["teacher", "soft", "two"]
    assert rows[0][-2] == ""
    assert rows[0][-3].startswith("+0.")
    assert len({len(line) for line in lines if line[:1] == "|"}) == 1


def test_what_is_missing_is_told_and_only_whole_seeds_count(study, finish, tmp_path):
    cells = list(study.cells(tmp_path))
    for cell in cells[:-1]:
        finish(cell)
    result = study_result(study, tmp_path, repeats=2)
    assert list(result["arms"]["two"]["accuracy_by_seed"]) == ["0"]
    assert re.search(r"\b1 of 24 .*\b12\b", study_table(result))


def test_before_a_seed_is_whole_its_finished_folds_count(study, finish, tmp_path):
    for cell in list(study.cells(tmp_path))[:9]:  # two folds of four arms, and the teacher of the third
        finish(cell)
    text = study_table(study_result(study, tmp_path, repeats=2))
    assert "2 of 3 folds" in text
    assert re.search(r"\b15 of 24 .*\b8\b", text)


def test_nothing_finished_is_told(study, finish, tmp_path):
    finish(next(iter(study.cells(tmp_path))))
    with pytest.raises(ValueError, match="1 of 24"):
        study_result(study, tmp_path)


def test_the_result_is_plain_json(study, finish, tmp_path):
    finish_all(study, finish, tmp_path)
    text = json.dumps(study_result(study, tmp_path, repeats=2), allow_nan=False)
    assert study_table(json.loads(text)) == study_table(study_result(study, tmp_path, repeats=2))


class TestNested:
    @pytest.fixture
    def nested(self, study):
        return dataclasses.replace(study, nested=True)

    def test_the_student_of_each_fold_is_chosen_on_its_validation_frames(self, nested, finish, tmp_path):
        cells = finish_all(nested, finish, tmp_path)
        for cell in cells:
            if (cell.arm, cell.fold) == ("two", 1):  # the better student fails on the validation frames of one fold
                table = read_predictions(cell.predictions("validation"))
                wrong = np.roll(np.eye(3)[table.labels], 1, axis=1)
                dataclasses.replace(table, probabilities=wrong).write(cell.predictions("validation"))
        result = study_result(nested, tmp_path, repeats=2)
        assert result["choice"] == {"0": "two", "1": "soft", "2": "two"}
        chosen = [cell for cell in cells if cell.arm == result["choice"][str(cell.fold)]]
        tables = [read_predictions(cell.predictions("testing")) for cell in chosen]
        expected = np.mean([table.classes == table.labels for table in tables])
        assert result["arms"]["chosen on validation"]["metrics"]["accuracy"]["value"] == pytest.approx(expected)

    def test_seeds_widen_the_interval_and_leave_the_value(self, nested, finish, tmp_path):
        for cell in finish_all(nested, finish, tmp_path):
            if cell.arm == "soft" and cell.seed == 1:  # a seed that fails
                table = read_predictions(cell.predictions("testing"))
                wrong = np.roll(np.eye(3)[table.labels], 1, axis=1)
                dataclasses.replace(table, probabilities=wrong).write(cell.predictions("testing"))
        soft = study_result(nested, tmp_path, repeats=100)["arms"]["soft"]
        patients, seeds = soft["metrics"]["accuracy"], soft["metrics_over_seeds"]["accuracy"]
        assert seeds["value"] == patients["value"]
        assert seeds["low"] == 0  # both draws were of the seed that fails
        assert seeds["high"] - seeds["low"] > 2 * (patients["high"] - patients["low"])

    def test_seeds_that_agree_add_nothing(self, nested, finish, tmp_path):
        for cell in finish_all(nested, finish, tmp_path):
            if cell.scored and cell.seed == 1:
                twin = cell.folder.parents[1] / "seed_0" / cell.folder.name
                cell.predictions("testing").write_bytes((twin / "testing.csv").read_bytes())
        soft = study_result(nested, tmp_path, repeats=50)["arms"]["soft"]
        assert soft["metrics_over_seeds"]["accuracy"] == pytest.approx(soft["metrics"]["accuracy"])

    def test_the_table_shows_both_intervals(self, nested, finish, tmp_path):
        finish_all(nested, finish, tmp_path)
        text = study_table(study_result(nested, tmp_path, repeats=20))
        assert "accuracy above soft, seeds drawn too" in text
        assert "run 5 or more" in text

    def test_no_arm_takes_the_name_of_the_added_row(self):
        with pytest.raises(ValueError, match="chosen on validation"):
            Study(("train.json",), "bundle", {"chosen on validation": Arm("teacher")}, nested=True)
