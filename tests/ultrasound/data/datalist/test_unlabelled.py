from __future__ import annotations

import json

import pytest
from PIL import Image

from monai_fetalkd.ultrasound.data.datalist import read_source

CLASSES = ["brain", "femur"]


@pytest.fixture
def labelled(tmp_path):
    """A table of ten patients, four of them in the test set, with an image for each class."""
    lines = ["image,label,patient_id,split"]
    for patient in range(10):
        for name in CLASSES:
            Image.new("L", (32, 24), 9).save(tmp_path / f"{name}{patient}.png")
            lines.append(f"{name}{patient}.png,{name},p{patient},{'test' if patient > 5 else 'train'}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    return tmp_path / "t.csv"


@pytest.fixture
def frames(tmp_path):
    """A folder for each patient p0 to p11 with a frame without label; for one a cine of three too."""
    for patient in range(12):
        path = tmp_path / "more" / f"p{patient}" / "x.png"
        path.parent.mkdir(parents=True)
        Image.new("L", (32, 24), 9).save(path)
    pages = [Image.new("L", (32, 24), level) for level in (1, 2, 3)]
    pages[0].save(tmp_path / "more" / "p1" / "cine.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "more" / "readme.txt").touch()
    return tmp_path / "more"


def test_a_folder_gives_the_frames_of_patients_that_are_not_held_out(labelled, frames, tmp_path):
    datalist = read_source(labelled, CLASSES, unlabelled=frames, val=0, plain_groups=True)
    rows = datalist.section("unlabelled")
    assert {row["group"] for row in rows} == {f"p{patient}" for patient in (0, 1, 2, 3, 4, 5, 10, 11)}
    assert [row["frame"] for row in rows if "frame" in row] == [0, 1, 2]
    assert not any("label" in row for row in rows)
    assert sorted(datalist.provenance["left_out"].values()) == [1, 4]  # the text, and frames of patients held out
    datalist.save(tmp_path / "o.json")
    again = read_source(tmp_path / "o.json")
    assert [row["group"] for row in again.unlabelled] == [row["group"] for row in rows]
    assert again.counts() == datalist.counts()


def test_patients_have_the_same_key_with_and_without_labels(labelled, frames):
    datalist = read_source(labelled, CLASSES, unlabelled=frames, val=0)
    assert {row["group"] for row in datalist.section("training")} < {row["group"] for row in datalist.unlabelled}


def test_frames_are_added_to_a_datalist_under_the_same_salt(labelled, frames, tmp_path):
    read_source(labelled, CLASSES, val=0, salt_file=tmp_path / "salt").save(tmp_path / "o.json")
    datalist = read_source(tmp_path / "o.json", unlabelled=frames, salt_file=tmp_path / "salt")
    assert len({row["group"] for row in datalist.unlabelled}) == 8
    assert not any(row["group"].startswith("p") for row in datalist.unlabelled)


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("list.txt", "more/p0/x.png\n\nmore\\p1\\cine.tif\n", 4),
        ("list.csv", "image,patient_id,label\nmore/p0/x.png,p0,\nmore/p1/cine.tif,p1,\n", 4),
        ("list.csv", "image,frame\nmore/p1/cine.tif,2\n", 1),
    ],
)
def test_a_list_of_files_and_cines(labelled, frames, name, text, count):
    (frames.parent / name).write_text(text)
    rows = read_source(labelled, CLASSES, unlabelled=frames.parent / name, plain_groups=True, val=0).unlabelled
    assert len(rows) == count
    if "patient_id" in text:
        assert {row["group"] for row in rows} == {"p0", "p1"}


def test_a_split_of_the_table_and_a_folder_beside_the_classes_may_be_unlabelled(tmp_path, labelled):
    with labelled.open("a") as file:
        file.write("\nmore.png,,p0,unlabelled\n")
    Image.new("L", (32, 24), 9).save(tmp_path / "more.png")
    (row,) = read_source(labelled, CLASSES, plain_groups=True).unlabelled
    assert row["image"] == str(tmp_path / "more.png")
    for name in ("brain", "femur", "unlabelled"):
        (tmp_path / "set" / name / "p1").mkdir(parents=True)
        Image.new("L", (32, 24), 9).save(tmp_path / "set" / name / "p1" / "a.png")
    datalist = read_source(tmp_path / "set", val=0, test=0)
    assert datalist.class_names == CLASSES
    assert len(datalist.unlabelled) == 1


def test_a_fold_for_validation_keeps_its_patients_out_of_the_unlabelled(labelled, frames):
    datalist = read_source(labelled, CLASSES, unlabelled=frames, folds=3)
    for fold in range(3):
        chosen = datalist.with_fold(fold)
        assert len(chosen.unlabelled) < len(datalist.unlabelled)
        chosen.validate()


def test_a_frame_with_a_label_is_not_unlabelled(labelled):
    (labelled.parent / "list.txt").write_text("brain0.png\n")
    datalist = read_source(labelled, CLASSES, unlabelled=labelled.parent / "list.txt", val=0)
    assert not datalist.unlabelled
    assert list(datalist.provenance["left_out"].values()) == [1]


def test_unlabelled_frames_of_a_test_patient_are_refused(labelled, tmp_path):
    rows = [{"image": f"brain{number}.png", "label": number, "group": f"p{number}"} for number in (0, 1)]
    content = {"training": rows[:1], "testing": rows[1:], "unlabelled": [{"image": "femur1.png", "group": "p1"}]}
    (tmp_path / "l.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"'testing' \('.*brain1.png'\) and 'unlabelled' \('.*femur1.png'\)"):
        read_source(tmp_path / "l.json", CLASSES, plain_groups=True).validate()


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("nowhere", {}, FileNotFoundError, "nowhere' do not exist"),
        ("empty", {}, FileNotFoundError, "no frames in"),
        ("t.xlsx", {}, ValueError, "no folder, no list of files"),
        ("more", {"cine_step": 0}, ValueError, "cine_step must be 1 or more"),
        ("more", {"task": "planes"}, ValueError, "no use for task"),
    ],
)
def test_what_is_wrong_with_unlabelled_frames_is_said(labelled, frames, name, options, error, message):
    (labelled.parent / "empty").mkdir()
    (labelled.parent / "t.xlsx").touch()
    with pytest.raises(error, match=message):
        read_source(labelled, CLASSES, unlabelled=labelled.parent / name, **options)
