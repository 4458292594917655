from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys

import pytest
from PIL import Image

from monai_fetalkd.commands import datalist

NAME, NUMBER, DOCTOR = "Doe^Jane", "MRN-20871", "Dr. Who"


def command(*arguments):
    parser = argparse.ArgumentParser(description=datalist.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datalist.add_arguments(parser)
    return datalist.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def table(tmp_path):
    """Twelve patients with a frame of each of two classes; one of them, and who scanned her, known by name."""
    path = tmp_path / "frames.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["file", "plane", "patient", "operator", "PatientName"])
        for patient in range(12):
            for plane in ("brain", "femur"):
                Image.new("L", (32, 24), 9).save(tmp_path / f"{plane}{patient}.png")
                number, name = (NUMBER, NAME) if patient == 3 else (f"MRN-{patient}", "Roe^Ann")
                writer.writerow([f"{plane}{patient}", plane, number, DOCTOR, name])
    return path


COLUMNS = ("--image_column", "file", "--label_column", "plane", "--group_column", "patient")


def test_one_command_makes_a_datalist_and_tells_what_is_in_it(table, tmp_path, capsys):
    output = tmp_path / "made" / "planes.json"
    assert command(table, *COLUMNS, "--classes", "femur", "brain", "--output", output) == 0
    content = json.loads(output.read_text())
    assert content["labels"] == {"0": "femur", "1": "brain"}
    assert sum(len(content[section]) for section in ("training", "validation", "testing")) == 24
    for row in content["training"]:
        assert row.keys() == {"image", "label", "group", "source", "operator"}
        assert (output.parent / row["image"]).is_file()

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["training", "validation", "testing", "sum"]
    assert [line[0] for line in lines[1:3]] == ["femur", "brain"]
    assert lines[3][:2] == ["all", "frames"]
    assert lines[3][-1] == "24"
    assert lines[4][-1] == "12"
    assert lines[5] == ["left", "out:", "nothing"]
    assert lines[6] == ["written:", str(output)]


def test_no_output_tells_who_the_patient_is(table, tmp_path, capfd, caplog):
    caplog.set_level("DEBUG")
    command(table, *COLUMNS, "--output", tmp_path / "planes.json", "--salt_file", tmp_path / "salt")
    (tmp_path / "brain3.png").unlink()
    command(table, *COLUMNS, "--output", tmp_path / "part.json", "--missing", "skip", "--folds", "3")
    with pytest.raises(FileNotFoundError) as caught:
        command(table, *COLUMNS, "--output", tmp_path / "none.json")
    content = {"training": [{"image": "femur3.png", "label": "femur", "group": NUMBER, "name": NAME}]}
    (tmp_path / "theirs.json").write_text(json.dumps(content))
    command(tmp_path / "theirs.json", "--classes", "femur", "--output", tmp_path / "ours.json")

    written = [(tmp_path / f"{name}.json").read_text() for name in ("planes", "part", "ours")]
    for text in (*written, *capfd.readouterr(), caplog.text, str(caught.value)):
        assert not any(secret in text for secret in (NAME, "Doe", "Jane", NUMBER, "20871", DOCTOR))


def test_dicom_headers_stay_where_they_are(tmp_path, capfd, caplog):
    pydicom = pytest.importorskip("pydicom")
    examples = pytest.importorskip("pydicom.examples")
    caplog.set_level("DEBUG")
    for number in range(4):
        dataset = pydicom.dcmread(examples.get_path("rgb_color"))
        dataset.PatientName, dataset.PatientID = NAME, f"{NUMBER}-{number}"
        dataset.PatientBirthDate, dataset.OperatorsName = "19870214", DOCTOR
        (tmp_path / "frames" / "brain").mkdir(parents=True, exist_ok=True)
        dataset.save_as(tmp_path / "frames" / "brain" / f"{number}.dcm")
    assert command(tmp_path / "frames", "--classes", "brain", "--output", tmp_path / "planes.json") == 0
    for text in ((tmp_path / "planes.json").read_text(), *capfd.readouterr(), caplog.text):
        assert not any(secret in text for secret in (NAME, "Doe", NUMBER, "20871", "19870214", DOCTOR))


def test_groups_have_the_same_keys_under_the_same_salt_alone(table, tmp_path):
    def groups(*arguments):
        command(table, *COLUMNS, "--output", tmp_path / "planes.json", *arguments)
        return {row["group"] for row in json.loads((tmp_path / "planes.json").read_text())["training"]}

    kept = groups("--salt_file", tmp_path / "salt")
    assert groups("--salt_file", tmp_path / "salt") == kept
    assert not groups() & kept
    assert any(group.startswith("MRN-") for group in groups("--plain_groups"))


def test_folds_and_new_splits_of_a_datalist(table, tmp_path, capsys):
    command(table, *COLUMNS, "--output", tmp_path / "planes.json")
    groups = {row["group"] for row in json.loads((tmp_path / "planes.json").read_text())["testing"]}
    command(tmp_path / "planes.json", "--folds", "3", "--output", tmp_path / "folds.json")
    content = json.loads((tmp_path / "folds.json").read_text())
    assert "validation" not in content
    assert {row["fold"] for row in content["training"]} == {0, 1, 2}
    assert {row["group"] for row in content["testing"]} == groups
    assert content["provenance"]["source"]["provenance"]["source"]["name"] == "frames.csv"
    command(tmp_path / "folds.json", "--new_split", "--seed", "5", "--output", tmp_path / "folds.json")
    assert "validation" in json.loads((tmp_path / "folds.json").read_text())


def test_a_group_on_two_sides_is_not_written(table, tmp_path):
    (tmp_path / "t.csv").write_text("image,label,group,split\nbrain0.png,brain,p,train\nfemur0.png,femur,p,test\n")
    with pytest.raises(ValueError, match="in more than one section"):
        command(tmp_path / "t.csv", "--val", "0", "--output", tmp_path / "planes.json")
    assert not (tmp_path / "planes.json").exists()


def test_what_is_left_out_and_what_has_no_label_is_printed_and_stored(table, tmp_path, capsys):
    with table.open("a") as file:
        file.write(";;;;\n")
    for number in range(3):
        Image.new("L", (32, 24), 9).save(tmp_path / f"more{number}.png")
    (tmp_path / "more.txt").write_text("more0.png\nmore1.png\nmore2.png\n")
    output = tmp_path / "planes.json"
    command(table, *COLUMNS, "--unlabelled", tmp_path / "more.txt", "--output", output)
    out = capsys.readouterr().out
    assert "left out: 1 empty rows" in out
    assert "unlabelled: 3 frames of 3 groups" in out
    content = json.loads(output.read_text())
    assert content["provenance"]["left_out"] == {"empty rows": 1}
    assert [row["image"] for row in content["unlabelled"]] == ["more0.png", "more1.png", "more2.png"]


def test_a_frame_with_two_labels_is_not_written(table, tmp_path):
    with table.open("a") as file:
        file.write("brain0;femur;MRN-0;;\n")
    with pytest.raises(ValueError, match="brain0.png' is 'brain'"):
        command(table, *COLUMNS, "--output", tmp_path / "planes.json")
    assert not (tmp_path / "planes.json").exists()


def test_a_source_without_frames_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("image,label\n")
    with pytest.raises(ValueError, match=r"t\.csv"):
        command(tmp_path / "t.csv", "--output", tmp_path / "planes.json")


def test_the_arguments_need_neither_torch_nor_monai():
    code = (
        "import argparse, sys; from monai_fetalkd.commands import datalist; "
        "datalist.add_arguments(argparse.ArgumentParser()); "
        "sys.exit(bool({'torch', 'monai', 'sklearn'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["frames.csv", "0.png", "planes.txt", "folder.json"])
def test_an_output_that_is_no_datalist_is_refused_before_anything_is_written(table, name):
    (table.parent / "folder.json").mkdir()
    before = {path: path.read_bytes() for path in table.parent.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=name):
        command(table, *COLUMNS, "--output", table.parent / name)
    assert {path: path.read_bytes() for path in table.parent.iterdir() if path.is_file()} == before
