from __future__ import annotations

import pytest

from monai_fetalkd.evaluation.study.data import write_datalists
from monai_fetalkd.ultrasound.data.datalist import load_datalist

CLASSES = ["abdomen", "brain"]
FOLDS = 4


@pytest.fixture
def table(tmp_path):
    """Eight patients with three frames each, split into sections of their own."""
    lines = ["image,label,patient_id,split"]
    for patient in range(8):
        for number in range(3):
            (tmp_path / f"{patient}_{number}.png").touch()
            split = "train" if patient < 6 else "test"
            lines.append(f"{patient}_{number}.png,{CLASSES[(patient + number) % 2]},mrn {patient},{split}")
    path = tmp_path / "planes.csv"
    path.write_text("\n".join(lines))
    return path


def rows_by_section(path):
    return load_datalist(path, CLASSES).sections  # which refuses a patient on two sides


def test_each_frame_is_tested_once_and_validates_once(table, tmp_path):
    write_datalists(load_datalist(table, CLASSES), FOLDS, tmp_path / "data")
    folds = [rows_by_section(tmp_path / "data" / f"fold_{fold}.json") for fold in range(FOLDS)]
    images = sorted(str(path) for path in tmp_path.glob("*.png"))
    for section in ("testing", "validation"):
        assert sorted(row["image"] for fold in folds for row in fold[section]) == images
    for number, fold in enumerate(folds):
        assert sum(map(len, fold.values())) == len(images)
        following = {row["image"] for row in folds[(number + 1) % FOLDS]["testing"]}
        assert {row["image"] for row in fold["validation"]} == following
        groups = [{row["group"] for row in fold[section]} for section in fold]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 8


def test_patients_are_pseudonyms_and_the_same_in_every_fold(table, tmp_path):
    write_datalists(load_datalist(table, CLASSES), FOLDS, tmp_path / "data")
    names = []
    for fold in range(FOLDS):
        path = tmp_path / "data" / f"fold_{fold}.json"
        assert "mrn" not in path.read_text()
        names.append({row["image"]: row["group"] for rows in rows_by_section(path).values() for row in rows})
    assert names == [names[0]] * FOLDS


@pytest.mark.parametrize("folds", [None, FOLDS])
def test_the_same_frames_are_the_same_though_their_pseudonyms_are_new(table, tmp_path, folds):
    write_datalists(load_datalist(table, CLASSES), folds, tmp_path / "data")
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    write_datalists(load_datalist(table, CLASSES), folds, tmp_path / "data")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}


@pytest.mark.parametrize("folds", [None, FOLDS])
@pytest.mark.parametrize("change", [("abdomen", "brain"), ("mrn 5", "mrn 4"), ("2_1.png,brain,mrn 2,train\n", "")])
def test_other_frames_are_refused(table, tmp_path, folds, change):
    write_datalists(load_datalist(table, CLASSES), folds, tmp_path / "data")
    table.write_text(table.read_text().replace(*change))
    with pytest.raises(ValueError, match="folds"):
        write_datalists(load_datalist(table, CLASSES), folds, tmp_path / "data")


def test_another_number_of_folds_is_refused(table, tmp_path):
    write_datalists(load_datalist(table, CLASSES), FOLDS, tmp_path / "data")
    with pytest.raises(ValueError, match="give the same data"):
        write_datalists(load_datalist(table, CLASSES), 3, tmp_path / "data")


def test_unlabelled_frames_train_in_every_fold_but_those_of_patients_held_out(table, tmp_path):
    with table.open("a") as file:
        for patient in (3, 8):
            (tmp_path / f"{patient}_more.png").touch()
            file.write(f"\n{patient}_more.png,,mrn {patient},unlabelled")
    write_datalists(load_datalist(table, CLASSES), FOLDS, tmp_path / "data")
    held_out = 0
    for fold in range(FOLDS):
        datalist = load_datalist(tmp_path / "data" / f"fold_{fold}.json", CLASSES)  # which refuses a leak
        shown = {row["image"].rpartition("/")[2] for row in datalist.unlabelled}
        groups = {row["image"].rpartition("/")[2][0] for row in datalist.sections["training"]}
        assert shown == {"8_more.png"} | ({"3_more.png"} if "3" in groups else set())
        held_out += "3_more.png" not in shown
    assert held_out == 2  # the fold that tests the patient, and the one that validates


def test_other_unlabelled_frames_are_other_data(table, tmp_path):
    (tmp_path / "more.png").touch()
    write_datalists(load_datalist(table, CLASSES), None, tmp_path / "data")
    with table.open("a") as file:
        file.write("\nmore.png,,mrn 9,unlabelled")
    with pytest.raises(ValueError, match="give the same data"):
        write_datalists(load_datalist(table, CLASSES), None, tmp_path / "data")
