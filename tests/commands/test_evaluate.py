from __future__ import annotations

import json

import numpy as np
import pytest

from monai_fetalkd.__main__ import main
from monai_fetalkd.evaluation.scores.predictions import Predictions

CLASSES = ("abdomen", "brain")


@pytest.fixture
def write(tmp_path):
    """Writes predictions of which some are wrong, and gives the path of the file."""

    def write(name, wrong=(), frames=20, prefix="frame", classes=CLASSES):
        labels = np.arange(frames) % 2
        told = labels.copy()
        told[list(wrong)] = 1 - told[list(wrong)]
        rows = [
            {"image": f"{prefix}{number}.png", "label": int(label), "group": f"p{number // 2}"}
            for number, label in enumerate(labels)
        ]
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Predictions.from_rows(classes, rows, np.eye(2)[told] * 0.8 + 0.1).write(path)
        return str(path)

    return write


def run(*arguments):
    return main(["evaluate", "--repeats", "20", *arguments])


def test_networks_are_named_by_their_files_and_compared(write, capsys, tmp_path):
    assert run(write("teacher.csv"), write("student.csv", wrong=[0, 5])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")] == ["", "", "teacher", "student", ""]
    assert lines[2].split("|")[2].strip() == "1.000 (0.692 to 1.000, exact)"
    assert lines[2].split("|")[3].strip().startswith("0.900 (")
    assert any(line.startswith("student - teacher: accuracy -0.100 (") for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher.csv", "student.csv"}


def test_the_result_is_written_with_its_settings(write, capsys, tmp_path):
    teacher, student = write("a/test.csv"), write("b=2/test.csv", wrong=[1])
    validation = write("val.csv", wrong=[3], prefix="validation")
    output = tmp_path / "eval"
    options = ["--validation", f"student={validation}", "--split", "held out", "--seed", "3", "--output", str(output)]
    assert run(f"teacher={teacher}", f"student={student}", *options) == 0
    assert f"The result is in '{output}'." in capsys.readouterr().out
    content = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert content["split"] == "held out"
    assert content["bootstrap"] == {"repeats": 20, "seed": 3, "unit": "group"}
    assert content["settings"] == {
        "predictions": {"teacher": teacher, "student": student},
        "validation": {"student": validation},
    }
    assert content["networks"]["student"]["temperature"]["frames"] == 20
    assert (output / "predictions" / "student.csv").read_text() == (tmp_path / "b=2" / "test.csv").read_text()


def test_a_path_with_an_equals_sign_needs_no_name(write, capsys):
    assert run(write("width=16.csv")) == 0
    assert "width=16" in capsys.readouterr().out


def test_an_older_result_is_replaced_on_request_only(write, capsys, tmp_path):
    student, output = write("student.csv"), str(tmp_path / "eval")
    assert run(student, "--output", output) == 0
    assert run(student, "--output", output) == 1
    assert "is an older result" in capsys.readouterr().err
    assert run(student, "--output", output, "--overwrite") == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"frames": 19}, "There is no frame 'frame19.png' in 'student'"),
        (
            {"classes": ("abdomen", "femur")},
            r"of 'teacher' \['abdomen', 'brain'\] and of 'student' \['abdomen', 'femur'\]",
        ),
    ],
)
def test_networks_of_other_frames_or_classes_are_refused(write, capsys, other, message):
    assert run(write("teacher.csv"), write("student.csv", **other)) == 1
    assert message.replace("\\", "") in capsys.readouterr().err


def test_two_files_of_one_name_are_refused(write, capsys):
    assert run(write("a/test.csv"), write("b/test.csv")) == 1
    assert "'test': name one as NAME=FILE" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys, tmp_path):
    assert run(str(tmp_path / "absent.csv")) == 1
    assert "absent.csv" in capsys.readouterr().err


def test_a_report_needs_predictions_alone(write, capsys, tmp_path):
    output = tmp_path / "eval"
    assert run(write("teacher.csv"), write("student.csv", wrong=[0, 5]), "--output", str(output), "--report") == 0
    assert str(output / "report.html") in capsys.readouterr().out
    text = (output / "report.html").read_text(encoding="utf-8")
    assert "Not a medical device" in text
    assert "frame0.png" not in text


def test_a_report_without_a_folder_is_refused(write, capsys):
    assert run(write("teacher.csv"), "--report") == 1
    assert "--output" in capsys.readouterr().err


def test_a_network_without_a_name_is_refused(write, capsys):
    assert run(f"={write('student.csv')}") == 1
    assert "NAME=FILE" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--seed", "-1"), ("--repeats", "0"), ("--repeats", "many")])
def test_numbers_that_no_bootstrap_takes_are_wrong_arguments(write, option):
    with pytest.raises(SystemExit, match="2"):
        run(write("student.csv"), *option)


def test_the_home_folder_is_meant_by_a_tilde_in_any_argument(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("student.csv")
    assert run("model=~/student.csv", "--output=~/eval") == 0
    assert (tmp_path / "eval" / "metrics.json").is_file()
