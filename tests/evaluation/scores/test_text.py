from __future__ import annotations

import re

import pytest

from monai_fetalkd.evaluation.scores.result import evaluate
from monai_fetalkd.evaluation.scores.text import table


def test_the_table_shows_networks_side_by_side(content):
    lines = table(content).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    assert rows[0] == ["", "teacher", "Student"]
    shown = {row[0]: row[1:] for row in rows[2:]}
    for title, metric in {
        "accuracy": "accuracy",
        "balanced accuracy": "balanced_accuracy",
        "macro F1": "macro_f1",
        "macro AUROC": "macro_auroc",
        "negative log-likelihood": "negative_log_likelihood",
        "expected calibration error": "expected_calibration_error",
    }.items():
        found = [network["metrics"][metric] for network in content["networks"].values()]
        for text, cell in zip(shown[title], found, strict=True):
            numbers = re.findall(r"\d\.\d{3}", text)
            assert numbers == [f"{cell[key]:.3f}" for key in ("value", "low", "high") if cell[key] is not None]
            assert ("exact" in text) == ("method" in cell)
    assert shown["temperature"] == ["-", f"{content['networks']['Student']['temperature']['value']:.3f}"]
    assert shown["negative log-likelihood, scaled"][0] == "-"
    assert shown["parameters (millions)"] == ["-", "0.700"]
    assert shown["multiply-accumulates (billions)"] == ["-", "0.116"]
    assert shown["milliseconds a frame, median (p95)"] == ["-", "2.50 (3.10)"]
    assert "60 frames of 12 groups." in lines


def test_the_table_tells_whose_note_it_is(content):
    teacher, student = ({**network} for network in content["networks"].values())
    teacher["notes"], student["notes"] = ["Of all."], ["Of all.", "Of one."]
    lines = table({**content, "networks": {"teacher": teacher, "student": student}}).splitlines()
    assert lines[-2:] == ["Of all.", "'student': Of one."]


def test_the_table_leaves_out_what_was_not_measured(networks):
    text = table(evaluate(networks, repeats=1))
    assert "temperature" not in text
    assert "milliseconds" not in text


@pytest.mark.parametrize(("p_value", "shown"), [(0.3, "p = 0.300"), (0.0004, "p < 0.001")])
def test_the_table_tells_differences_with_their_sign(content, p_value, shown):
    pair = {
        "first": "teacher",
        "second": "Student",
        "differences": {"accuracy": {"value": 0.02, "low": -0.01, "high": 0.05}},
        "mcnemar": {"only_first": 1, "only_second": 2, "p_value": p_value},
    }
    text = table({**content, "comparisons": [pair]})
    assert f"Student - teacher: accuracy +0.020 (-0.010 to +0.050), McNemar {shown}" in text.splitlines()
