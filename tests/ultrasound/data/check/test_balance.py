from __future__ import annotations

import re

from monai_fetalkd.ultrasound.data.check import count_balance
from monai_fetalkd.ultrasound.data.datalist import Datalist


def row(label, group, source="clinic"):
    return {"image": f"{group}.png", "label": label, "group": group, "source": source}


def balance_of(sections, class_names):
    return count_balance(Datalist("planes.json", class_names, sections))


SECTIONS = {
    "training": [
        row(0, "p1"),
        row(0, "p1"),
        row(0, "p2", "hospital"),
        row(1, "p2", "hospital"),
        row(1, "p3", "hospital"),
    ],
    "validation": [row(0, "p4"), row(1, "p5", "hospital")],
    "testing": [row(0, "p6", "hospital")],
}


def test_frames_are_counted_by_class_section_and_source():
    balance = balance_of(SECTIONS, ["abdomen", "brain", "femur"])
    assert balance.by_section == {
        "training": {"abdomen": 3, "brain": 2, "femur": 0},
        "validation": {"abdomen": 1, "brain": 1, "femur": 0},
        "testing": {"abdomen": 1, "brain": 0, "femur": 0},
    }
    assert balance.by_source == {
        "clinic": {"abdomen": 3, "brain": 0, "femur": 0},
        "hospital": {"abdomen": 2, "brain": 3, "femur": 0},
    }
    assert balance.groups == {"training": 3, "validation": 2, "testing": 1}
    assert balance.group_count == 6


def test_a_class_absent_from_a_section_and_a_class_of_one_source_are_warned_of():
    warnings = balance_of(SECTIONS, ["abdomen", "brain"]).warnings()
    assert len(warnings) == 2
    assert re.search("'brain'.*testing", warnings[0])
    assert re.search("'brain'.*'hospital'", warnings[1])


def test_an_empty_section_and_a_single_source_are_no_reason_to_warn():
    sections = {"training": [row(0, "p1"), row(1, "p2"), row(1, "p2")], "validation": []}
    assert balance_of(sections, ["abdomen", "brain"]).warnings() == []


def test_frames_without_groups_are_warned_of():
    sections = {"training": [row(0, "a.png")], "testing": [row(0, "b.png")]}
    (warning,) = balance_of(sections, ["abdomen"]).warnings()
    assert "group" in warning
