from __future__ import annotations

import pytest

from monai_fetalkd.evaluation.report.findings import count_frames, findings


def pair(first, second, low, high):
    return {"first": first, "second": second, "differences": {"accuracy": {"value": 0.0, "low": low, "high": high}}}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.2, "better"),
        (-0.2, -0.01, "worse"),
        (-0.1, 0.1, "neither"),
        (0.0, 0.1, "neither"),
        (None, None, "unknown"),
    ],
)
def test_the_paired_interval_tells_whether_a_network_is_better(low, high, verdict):
    content = {"networks": {"teacher": {}, "student": {}}, "comparisons": [pair("teacher", "student", low, high)]}
    assert [found.verdict for found in findings(content)] == [verdict]


def test_the_last_network_is_compared_with_each_of_the_others():
    comparisons = [pair("a", "b", 0.1, 0.2), pair("a", "c", -0.2, -0.1), pair("b", "c", 0.1, 0.2)]
    found = findings({"networks": dict.fromkeys("abc"), "comparisons": comparisons})
    assert [(finding.other, finding.verdict) for finding in found] == [("a", "worse"), ("b", "better")]
    assert findings({"networks": {"a": {}}, "comparisons": []}) == []


def test_frames_and_patients_are_counted_by_split_class_and_source():
    training = [{"label": n % 2, "group": f"p{n // 4}", "source": "clinic"} for n in range(8)]
    testing = [{"label": 1, "group": "q", "source": ""}, {"label": 1, "group": "r"}]
    counts = count_frames({"training": training, "testing": testing}, ["brain", "femur"])
    assert counts["class"] == [("brain", [(4, 2), (0, 0)]), ("femur", [(4, 2), (2, 2)])]
    assert counts["source"] == [("clinic", [(8, 2), (0, 0)]), ("unknown", [(0, 0), (2, 2)])]
    assert counts["all"] == [("all", [(8, 2), (2, 2)])]
