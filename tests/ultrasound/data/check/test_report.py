from __future__ import annotations

import json
import re
import sys

import pytest
from PIL import Image

from monai_fetalkd.ultrasound.data.check import check_datalist, report_text
from monai_fetalkd.ultrasound.data.datalist import Datalist


def check(sections, class_names=("abdomen",), unlabelled=(), **options):
    datalist = Datalist("planes.json", class_names, sections, unlabelled=list(unlabelled))
    return check_datalist(datalist, **{"workers": 1, "progress": False, **options})


def test_a_sound_datalist_has_no_problem(write, frames):
    report = check(
        {
            "training": [write(frames[0], "a.png", "p1"), write(frames[4], "b.png", "p1", label=1)],
            "testing": [write(frames[1], "c.png", "p2"), write(frames[5], "d.png", "p2", label=1)],
        },
        ["abdomen", "brain"],
    )
    assert report.problems() == []
    assert report.warnings() == []
    assert "0 problems" in report_text(report)


def test_a_group_on_two_sides_is_a_problem_named_by_a_frame_of_each(write, frames):
    a, b = write(frames[0], "a.png", "p1"), write(frames[1], "b.png", "p1")
    report = check({"training": [a], "testing": [b]})
    (problem,) = report.problems()
    assert re.search(rf"\bp1\b.*training .*{re.escape(a['image'])}.*testing .*{re.escape(b['image'])}", problem)


def test_a_frame_saved_again_in_another_section_is_a_problem(write, frames, tmp_path):
    rows = [write(frames[0], "a.png"), write(frames[1], "b.png"), write(frames[0], "c.bmp"), write(frames[1], "d.jpg")]
    report = check({"training": rows[:2], "testing": rows[2:]})
    exact, near = report.problems()
    assert f"'{tmp_path / 'a.png'}' (training, abdomen, group a.png)" in exact
    assert f"'{tmp_path / 'c.bmp'}' (testing, abdomen, group c.bmp)" in exact
    assert "b.png' (training" in near
    assert "d.jpg' (testing" in near
    assert "correlation 0.9" in near
    assert "1 exact, 1 near" in report_text(report)


def test_one_patient_under_two_groups_in_one_section_is_a_warning(write, frames):
    rows = [write(frames[0], "a.png", "p1"), write(frames[0], "b.png", "p2"), write(frames[1], "c.png", "p2")]
    report = check({"training": rows})
    assert report.problems() == []
    (warning,) = report.warnings()
    assert "1 pair" in warning
    assert "group p1" in warning
    assert "group p2" in warning


def test_the_same_frame_twice_in_one_group_and_section_is_nobodys_business(write, frames):
    report = check({"training": [write(frames[0], "a.png", "p1"), write(frames[0], "b.png", "p1")]})
    assert report.duplicates == []


def test_folds_are_sides(write, frames):
    rows = [{**write(frames[0], "a.png", "p1"), "fold": 0}, {**write(frames[0], "b.png", "p1"), "fold": 1}]
    report = check({"training": rows, "testing": []})
    assert report.balance.groups == {"fold 0": 1, "fold 1": 1, "testing": 0}
    assert list(report.torn_groups["p1"]) == ["fold 0", "fold 1"]
    assert report.duplicates[0].across_sections


@pytest.mark.parametrize("workers", [1, 2])
def test_frames_that_cannot_be_read_are_problems_and_the_rest_is_checked(write, frames, tmp_path, workers):
    rows = [write(frames[0], "a.png"), write(frames[1], "b.png"), write(frames[0], "c.png")]
    (tmp_path / "b.png").write_bytes(b"no picture")
    rows.append({**rows[0], "image": str(tmp_path / "absent.png")})
    report = check({"training": rows[:2], "testing": rows[2:]}, workers=workers)
    assert len(report.duplicates) == 1
    damaged, absent = report.unreadable
    assert damaged.startswith(f"The frame '{tmp_path / 'b.png'}' cannot be read: ")
    assert absent == f"The frame '{tmp_path / 'absent.png'}' does not exist."
    assert {damaged, absent} < set(report.problems())


def test_without_duplicates_no_frame_is_read():
    rows = [{"image": "/nowhere/a.png", "label": 0, "group": "p1", "source": "clinic"}]
    report = check({"training": rows}, duplicates=False)
    assert report.problems() == []
    assert report.duplicates is None
    assert "duplicates" not in report_text(report)


def test_what_to_install_is_said_when_the_perceptual_hash_is_not_there(write, frames, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(ImportError, match="`pip install imagehash`"):
        check({"training": [write(frames[0], "a.png")]})


def test_a_frame_of_a_file_of_several_is_named_by_its_number(frames, tmp_path):
    pages = [Image.fromarray(frame) for frame in frames[:3]]
    pages[0].save(tmp_path / "cine.tif", save_all=True, append_images=pages[1:])
    rows = [
        {"image": str(tmp_path / "cine.tif"), "frame": number, "label": 0, "group": f"p{number}", "source": "phantom"}
        for number in (0, 2, 2)
    ]
    report = check({"training": rows[:2], "testing": rows[2:]})
    (pair,) = report.duplicates
    assert pair.exact
    assert f"'{tmp_path / 'cine.tif'}', frame 2 (training" in str(pair)


def test_the_report_is_the_same_read_back_from_json(write, frames, tmp_path):
    report = check({"training": [write(frames[0], "a.png", "p1")], "testing": [write(frames[0], "b.png", "p1")]})
    report.write(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content == report.as_dict()
    assert content["datalist"] == "planes.json"
    assert content["balance"]["by_section"]["training"] == {"abdomen": 1}
    assert list(content["torn_groups"]["p1"]) == ["training", "testing"]
    (pair,) = content["duplicates"]
    assert pair["exact"]
    assert pair["first"]["section"] == "training"
    assert content["problems"] == report.problems()


def test_a_long_list_is_cut_on_the_terminal_and_whole_in_the_report():
    rows = [{"image": f"{k}.png", "label": 0, "group": f"p{k}", "source": "clinic"} for k in range(25)]
    report = check({"training": rows, "testing": rows}, duplicates=False)
    text = report_text(report)
    assert "25 problems:" in text
    assert text.count("is in training") == 20
    assert "5 more" in text
    assert len(report.as_dict()["problems"]) == 25


def test_the_text_fits_a_terminal_and_keeps_paths_in_one_piece(write, frames):
    rows = [write(frames[0], "a.png"), write(frames[0], "b.png")]
    text = report_text(check({"training": rows[:1], "testing": rows[1:]}))
    assert all(row["image"] in text for row in rows)
    assert all(len(line) <= 100 for line in text.splitlines() if rows[0]["image"] not in line)


def test_a_frame_with_two_labels_is_a_problem(write, frames):
    row = write(frames[0], "a.png", "p1")
    report = check({"training": [row, {**row, "label": 1}]}, ["abdomen", "brain"])
    (problem,) = report.problems()
    assert "(training, abdomen, group p1)" in problem
    assert "(training, brain, group p1)" in problem
    assert report.duplicates == []
    assert report.as_dict()["contradictions"][0][1]["label"] == "brain"


def test_a_copy_of_a_frame_with_another_label_is_a_problem_even_in_one_group(write, frames):
    rows = [write(frames[0], "a.png", "p1"), write(frames[0], "b.bmp", "p1", label=1), write(frames[0], "c.png", "p1")]
    report = check({"training": rows}, ["abdomen", "brain"])
    assert all("b.bmp" in problem and "two labels" in problem for problem in report.problems())
    assert len(report.problems()) == 2


def test_neighbours_in_a_cine_may_have_two_labels(write, frames):
    rows = [write(frames[0], "a.png", "p1"), write(frames[0], "b.jpg", "p1", label=1)]
    assert check({"training": rows}, ["abdomen", "brain"]).duplicates == []


def test_unlabelled_frames_are_kept_out_of_the_test_set_alone(write, frames):
    labelled = {"training": [write(frames[0], "a.png", "p1")], "testing": [write(frames[1], "b.png", "p2")]}
    unlabelled = [write(frames[number], f"u{number}.png", group) for number, group in ((0, "p1"), (1, "p3"), (2, "p2"))]
    report = check(labelled, unlabelled=[{k: v for k, v in row.items() if k != "label"} for row in unlabelled])
    torn, same = report.problems()
    assert re.search(r"\bp2\b.*testing", torn)
    assert "u2.png" in torn
    assert "u1.png' (unlabelled, unlabelled, group p3)" in same
    assert "b.png" in same
    assert "unlabelled: 3 frames of 3 groups" in report_text(report)


def test_one_group_for_all_is_a_warning():
    rows = [{"image": f"{k}.png", "label": 0, "group": "p", "source": "clinic"} for k in range(3)]
    assert any("one group" in warning for warning in check({"training": rows}, duplicates=False).warnings())
