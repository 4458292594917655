from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from monai_fetalkd.evaluation.scores.calibration import with_temperature
from monai_fetalkd.evaluation.scores.classification import class_scores, part_scores, scores
from monai_fetalkd.evaluation.scores.intervals import differences, intervals, mcnemar
from monai_fetalkd.evaluation.scores.output import write_evaluation
from monai_fetalkd.evaluation.scores.result import evaluate
from monai_fetalkd.evaluation.scores.text import table
from monai_fetalkd.evaluation.scores.threshold import answered

from .conftest import CLASSES, COST, REPEATS, network

CALIBRATION = ("negative_log_likelihood", "expected_calibration_error", "brier_score")


def as_json(found):
    return {
        name: {key: None if math.isnan(value) else value for key, value in vars(interval).items()}
        for name, interval in found.items()
    }


def of_the_bootstrap(found):
    """Without the exact intervals."""
    return {
        name: {**dict.fromkeys(("low", "high")), "value": interval["value"]} if "method" in interval else interval
        for name, interval in found.items()
        if isinstance(interval, dict)
    }


def test_the_content_is_as_the_schema_says(content, validator):
    validator.validate(json.loads(json.dumps(content, allow_nan=False)))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("bootstrap"),
        lambda content: content.update(version=2),
        lambda content: content["networks"]["teacher"]["metrics"].pop("accuracy"),
        lambda content: content["networks"]["teacher"]["metrics"]["accuracy"].update(value="0.9"),
        lambda content: content["comparisons"][0]["mcnemar"].update(p_value=None),
    ],
)
def test_the_schema_tells_another_content_apart(content, validator, change):
    other = json.loads(json.dumps(content))
    change(other)
    assert not validator.is_valid(other)


def test_each_network_has_its_scores_with_the_intervals_of_the_bootstrap(networks, content):
    assert content["bootstrap"] == {"repeats": REPEATS, "seed": 0, "unit": "group"}
    for name, predictions in networks.items():
        found = content["networks"][name]
        assert (found["frames"], found["groups"]) == (60, 12)
        assert of_the_bootstrap(found["metrics"]) == as_json(intervals(predictions, scores, REPEATS))


def test_each_class_has_its_scores_with_intervals(networks, content):
    for name, predictions in networks.items():
        truth = class_scores(predictions)
        for part, found in content["networks"][name]["classes"].items():
            assert (found["frames"], found["groups"]) == (20, 12)
            by_class = intervals(predictions, lambda frames, part=part: class_scores(frames)[part], REPEATS)
            assert of_the_bootstrap(found)["recall"] == as_json(by_class)["recall"]
            assert found["auroc"]["value"] == pytest.approx(truth[part]["auroc"])
        assert list(content["networks"][name]["classes"]) == list(CLASSES)


def test_sources_and_machines_are_scored_by_themselves_where_known(networks, content):
    student = networks["Student"]
    parts = {
        "sources": {f"hospital{number}": student.take(np.arange(number, 60, 2)) for number in (0, 1)},
        "machines": {"Voluson": student.take(np.arange(30))},
    }
    for kind, members in parts.items():
        found = content["networks"]["Student"][kind]
        assert set(found) == set(members)
        for name, predictions in members.items():
            assert found[name]["frames"] == 30
            assert of_the_bootstrap(found[name]["metrics"]) == as_json(intervals(predictions, part_scores, REPEATS))
    unknown = replace(student, sources=("",) * 60, machines=("",) * 60)
    found = evaluate({"student": unknown}, repeats=1)["networks"]["student"]
    assert (found["sources"], found["machines"]) == ({}, {})


def test_the_only_source_has_the_scores_of_all_frames():
    predictions = replace(network(2), sources=("hospital",) * 60)
    found = evaluate({"student": predictions}, repeats=REPEATS)["networks"]["student"]
    assert found["sources"] == {"hospital": {"frames": 60, "groups": 12, "metrics": found["metrics"]}}


def test_confusion_and_reliability_count_each_frame_once(networks, content):
    for name, predictions in networks.items():
        found = content["networks"][name]
        assert np.sum(found["confusion"], axis=1).tolist() == [20, 20, 20]
        assert np.trace(found["confusion"]) == np.sum(predictions.classes == predictions.labels)
        assert sum(part["frames"] for part in found["reliability"]) == 60


def test_the_temperature_is_fitted_where_there_are_validation_frames(content):
    assert content["networks"]["teacher"]["temperature"] is None
    student = content["networks"]["Student"]
    found = student["temperature"]
    assert found["frames"] == 45
    assert found["before"] == {name: student["metrics"][name] for name in CALIBRATION}
    assert set(found["after"]) == set(CALIBRATION)
    assert found["value"] > 0


def test_scaling_an_overconfident_network_calibrates_it():
    def overconfident(table):
        odds = table.probabilities**4
        return replace(table, probabilities=odds / odds.sum(axis=1, keepdims=True))

    found = evaluate(
        {"student": overconfident(network(1.5, frames=300))},
        {"student": overconfident(network(1.5, frames=300, seed=1, prefix="validation"))},
        repeats=1,
    )["networks"]["student"]["temperature"]
    assert found["value"] > 2
    for name in CALIBRATION:
        assert found["after"][name]["value"] < found["before"][name]["value"]


def test_each_two_networks_are_compared_in_their_order(networks):
    three = {**networks, "small": network(1, seed=4)}
    found = evaluate(three, repeats=REPEATS)["comparisons"]
    assert [(pair["first"], pair["second"]) for pair in found] == [
        ("teacher", "Student"),
        ("teacher", "small"),
        ("Student", "small"),
    ]
    for pair in found:
        first, second = three[pair["first"]], three[pair["second"]]
        assert pair["differences"] == as_json(differences(first, second, scores, REPEATS))
        assert pair["mcnemar"] == vars(mcnemar(first, second))


def test_costs_and_settings_are_kept(content):
    assert content["networks"]["Student"]["cost"] == COST
    assert content["networks"]["teacher"]["cost"] is None
    assert content["settings"] == {"checkpoint": "student.pt", "seed": 3}


@pytest.mark.parametrize("labels", [[0, 1] * 30, [2] * 60])
def test_what_is_not_defined_is_null_and_said(labels, validator, tmp_path):
    networks = {"student": network(2, labels=labels)}
    content = evaluate(networks, repeats=REPEATS)
    validator.validate(content)
    write_evaluation(content, networks, tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    found = json.loads(text)["networks"]["student"]
    for part in set(range(3)) - set(labels):
        assert found["classes"][CLASSES[part]]["frames"] == 0
        assert found["classes"][CLASSES[part]]["recall"] == {"value": None, "low": None, "high": None}
        assert any(CLASSES[part] in note for note in found["notes"])
        assert any(CLASSES[part] in line for line in table(content).splitlines())


def test_a_single_patient_has_values_without_intervals_and_a_note(validator):
    one = replace(network(2), groups=("patient",) * 60)
    content = evaluate({"student": one}, repeats=REPEATS)
    validator.validate(content)
    accuracy = content["networks"]["student"]["metrics"]["accuracy"]
    assert accuracy == {"value": np.mean(one.classes == one.labels), "low": None, "high": None}
    assert "one group" in table(content)


def test_an_interval_of_the_calibration_error_that_misses_its_value_is_explained():
    frames = np.arange(200)
    sure = np.where(frames % 20 < 10, 0.7, 0.5)  # and right exactly as often
    told = (frames + (frames % 10 >= 10 * sure)) % 3
    others = (1 - sure[:, None]) / 2
    probabilities = np.where(np.eye(3)[told] == 1, sure[:, None], others)
    plain = network(0, frames=200)
    student = replace(plain, probabilities=probabilities, groups=plain.files)
    content = evaluate({"student": student}, repeats=50)
    error = content["networks"]["student"]["metrics"]["expected_calibration_error"]
    assert error["value"] == pytest.approx(0)
    assert error["low"] > error["value"]
    assert "lies above" in table(content)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"networks": {}}, "nothing to evaluate"),
        ({"validation": {"pupil": network(2)}}, r"Validation predictions are given for 'pupil', but .* \['a', 'b'\]"),
        ({"costs": {"pupil": COST}}, "Costs are given for 'pupil'"),
        ({"networks": {"a": network(2), "b": network(2, frames=59)}}, "no frame 'frame59.png' in 'b'"),
        ({"networks": {"a": network(2, frames=59), "b": network(2)}}, "no frame 'frame59.png' in 'a'"),
        (
            {"networks": {"a": network(2), "b": replace(network(2), class_names=("x", "y", "z"))}},
            "class tables of 'a' .* and of 'b' .* differ",
        ),
        (
            {"validation": {"a": replace(network(2, prefix="v"), class_names=("x", "y", "z"))}},
            "class tables of 'a' .* and of its validation predictions .* differ",
        ),
        ({"validation": {"a": network(2)}}, "'frame0.png' is in the validation predictions of 'a' and in those eval"),
    ],
)
def test_ill_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**{"networks": {"a": network(2), "b": network(2)}, **arguments}, repeats=1)


def right_in(frames=60, wrong=(), **columns):
    """A network that is right in all frames but these."""
    told = np.arange(frames) % 3
    told[list(wrong)] = (told[list(wrong)] + 1) % 3
    plain = network(0, frames=frames)
    return replace(plain, probabilities=np.eye(3)[told] * 0.7 + 0.1, **columns)


def test_a_share_of_one_in_all_resamples_has_the_exact_interval_of_its_patients(validator):
    content = evaluate({"student": right_in()}, repeats=REPEATS)
    validator.validate(content)
    found = content["networks"]["student"]
    low = pytest.approx(0.025 ** (1 / 12))
    assert found["metrics"]["accuracy"] == {"value": 1, "low": low, "high": 1, "method": "Clopper-Pearson"}
    assert found["classes"]["brain"]["recall"]["method"] == "Clopper-Pearson"
    assert found["metrics"]["macro_f1"] == {"value": 1, "low": None, "high": None}
    notes = " ".join(found["notes"])
    assert "Clopper and Pearson" in notes
    assert re.search(r"interval of [\w ,]*macro f1[\w ,]* cannot be estimated", notes)


def test_a_difference_that_is_the_same_in_all_resamples_has_no_interval():
    pair = evaluate({"teacher": right_in(), "student": right_in()}, repeats=REPEATS)["comparisons"][0]
    assert pair["differences"]["accuracy"] == {"value": 0, "low": None, "high": None}


@pytest.mark.parametrize(("patients", "few"), [(12, True), (60, False)])
def test_few_patients_are_marked(patients, few):
    groups = tuple(f"patient{number % patients}" for number in range(60))
    sources = tuple("clinic" if number < 3 else "hospital" for number in range(60))
    student = right_in(wrong=[5, 8], groups=groups, sources=sources)
    notes = evaluate({"student": student}, repeats=REPEATS)["networks"]["student"]["notes"]
    assert any("There are only 12 groups" in note for note in notes) == few
    assert any("source 'clinic' (3)" in note for note in notes)
    assert any("source 'hospital' (12)" in note for note in notes) == few


def test_a_source_is_scored_by_the_classes_that_it_has():
    labels = [0, 1] * 30
    plain = network(0, labels=labels)
    told = np.array(labels)
    told[:6] = 2  # a class of which there is no frame
    student = replace(plain, probabilities=np.eye(3)[told] * 0.7 + 0.1, sources=("clinic",) * 60)
    found = evaluate({"student": student}, repeats=REPEATS)["networks"]["student"]
    by_scikit_learn = f1_score(labels, told, labels=[0, 1], average="macro", zero_division=0)
    assert found["sources"]["clinic"]["metrics"]["macro_f1"]["value"] == pytest.approx(by_scikit_learn, abs=1e-12)
    assert found["metrics"]["macro_f1"]["value"] == pytest.approx(f1_score(labels, told, average="macro"), abs=1e-12)


def test_a_threshold_tells_coverage_beside_accuracy(networks, content):
    assert content["networks"]["teacher"]["threshold"] is None
    found = content["networks"]["Student"]["threshold"]
    assert found["target"] == 0.95
    scaled = with_temperature(networks["Student"], content["networks"]["Student"]["temperature"]["value"])
    expected = answered(scaled, found["value"])
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)
    assert found["coverage"]["low"] < found["coverage"]["value"] < 1
    lines = table(content).splitlines()
    assert any("coverage" in line and f"{found['coverage']['value']:.3f} (" in line for line in lines)
    assert any("accuracy of the answers" in line for line in lines)
