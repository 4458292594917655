from __future__ import annotations

import json
import unicodedata

import pytest
from PIL import Image

from monai_fetalkd.ultrasound.data.datalist import load_datalist, read_source


def picture(path, grey=128, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 24), grey).save(path, kind)


def classes(folder, names=("brain", "femur"), patients=10):
    """A folder for each class, in it one for each patient with a frame."""
    for name in names:
        for patient in range(patients):
            picture(folder / name / f"p{patient}" / "a.png")


def rows_of(datalist):
    return [row for rows in datalist.sections.values() for row in rows]


def left_out(datalist):
    return datalist.provenance["left_out"]


@pytest.mark.parametrize(
    ("training", "testing"), [("train", "test"), ("training_set", "test_set"), ("Train", "TestSet")]
)
def test_folders_of_splits_are_known_whatever_lies_beside_them(tmp_path, training, testing):
    classes(tmp_path / training, patients=5)
    classes(tmp_path / testing, patients=5)
    (tmp_path / "__MACOSX").mkdir()
    picture(tmp_path / "docs" / "figure.png")
    picture(tmp_path / training / "cover.png")
    datalist = read_source(tmp_path, val=0)
    assert datalist.class_names == ["brain", "femur"]
    assert {section: len(rows) for section, rows in datalist.sections.items()} == {"training": 10, "testing": 10}
    assert left_out(datalist) == {"frames in the folder 'docs', which is no split": 1, "files beside the folders": 1}


def test_a_class_named_as_a_split_is_refused(tmp_path):
    classes(tmp_path, ("brain", "test"))
    with pytest.raises(ValueError, match=r"'test'.*beside 'brain'"):
        read_source(tmp_path)


def test_folders_of_splits_without_classes_are_no_classes(tmp_path):
    for name in ("training_set/000_HC.png", "training_set/001_HC.png", "test_set/000_HC.png"):
        picture(tmp_path / name)
    with pytest.raises(ValueError, match="test_set' is named as a split"):
        read_source(tmp_path)


def test_what_is_passed_over_is_counted_by_suffix(tmp_path, caplog):
    classes(tmp_path)
    picture(tmp_path / "brain" / "p0" / "a.webp", kind="WEBP")
    picture(tmp_path / "cover.png")
    for name in ("brain/notes.txt", "femur/p1/cine.avi", "femur/p2/cine.AVI", "femur/.hidden", "femur/Thumbs.db"):
        (tmp_path / name).touch()
    datalist = read_source(tmp_path)
    assert left_out(datalist) == {
        "files beside the folders": 1,
        "files that are no frames (.webp)": 1,
        "files that are no frames (.txt)": 1,
        "files that are no frames (.avi)": 2,
    }
    assert "2 files that are no frames (.avi)" in caplog.text


def test_pictures_are_known_by_their_content(tmp_path):
    classes(tmp_path)
    for name, kind in (("y.jfif", "JPEG"), ("z", "PNG")):
        picture(tmp_path / "brain" / "p0" / name, kind=kind)
    (tmp_path / "brain" / "p0" / "table.csv").write_text("BMI,age\n")
    datalist = read_source(tmp_path)
    assert len(rows_of(datalist)) == 22
    assert left_out(datalist) == {"files that are no frames (.csv)": 1}


def test_a_class_folder_without_a_frame_is_counted(tmp_path):
    classes(tmp_path)
    (tmp_path / "cervix").mkdir()
    assert left_out(read_source(tmp_path)) == {"folders without a frame": 1}


def test_more_classes_than_patients_are_told_as_folders_may_be_the_other_way_round(tmp_path, caplog):
    for patient in range(12):
        for label in ("brain", "femur"):
            picture(tmp_path / f"p{patient}" / label / "a.png")
    read_source(tmp_path, val=0, test=0.5)
    assert "more classes than patients" in caplog.text
    assert "2 patients" in caplog.text


def test_the_pixels_of_a_metaimage_header_are_not_passed_over(tmp_path):
    classes(tmp_path)
    (tmp_path / "brain" / "p0" / "b.mhd").write_text("NDims = 2\nDimSize = 2 2\nElementDataFile = b.raw\n")
    (tmp_path / "brain" / "p0" / "b.raw").write_bytes(bytes(4))
    assert left_out(read_source(tmp_path)) == {}


def test_masks_beside_the_frames_of_a_class_are_no_frames(tmp_path):
    classes(tmp_path)
    for name in ("a_mask.png", "a_mask_1.png"):
        picture(tmp_path / "brain" / "p0" / name)
    datalist = read_source(tmp_path)
    assert len(rows_of(datalist)) == 20
    assert list(left_out(datalist).values()) == [1, 1]


@pytest.mark.parametrize("depth", ["data", "zip/data"])
def test_a_folder_around_a_data_set_is_opened(tmp_path, depth):
    folder = tmp_path / depth
    picture(folder / "a.png")
    picture(folder / "b.png")
    rows = [{"image": "a.png", "label": 0, "group": "p"}, {"image": "b.png", "label": 1, "group": "q"}]
    (folder / "datalist.json").write_text(json.dumps({"labels": {"0": "brain", "1": "femur"}, "training": rows}))
    (tmp_path / "__MACOSX").mkdir()
    assert len(read_source(tmp_path).section("training")) == 2


def test_a_data_set_beside_other_folders_is_named(tmp_path):
    classes(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "datalist.json").write_text("{}")
    with pytest.raises(ValueError, match="old' beside other folders"):
        read_source(tmp_path)


def test_a_folder_around_the_classes_is_not_one_class(tmp_path):
    classes(tmp_path / "planes")
    with pytest.raises(ValueError, match=r"one class alone, 'planes'.*give the one in it \('.*planes'\)"):
        read_source(tmp_path)
    (tmp_path / "labels.csv").touch()
    with pytest.raises(ValueError, match=r"or the table '.*labels.csv'"):
        read_source(tmp_path)


def test_names_in_two_unicode_forms_are_one_name(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "fœtus é") for form in ("NFC", "NFD"))
    for path in (f"{composed}/{decomposed}/a.png", f"{decomposed}/{composed}/b.png", f"other/{composed}/c.png"):
        picture(tmp_path / path)
    datalist = read_source(tmp_path, val=0, test=0, plain_groups=True)
    assert datalist.class_names == [composed, "other"]
    assert {row["group"] for row in rows_of(datalist)} == {composed}


def test_folders_named_nan_are_neither_class_nor_patient(tmp_path):
    classes(tmp_path)
    picture(tmp_path / "brain" / "nan" / "a.png")
    picture(tmp_path / "femur" / "None" / "a.png")
    groups = [row["group"] for row in rows_of(read_source(tmp_path, plain_groups=True))]
    assert not {"nan", "None"} & set(groups)
    picture(tmp_path / "NaN" / "p0" / "a.png")
    with pytest.raises(ValueError, match="NaN'"):
        read_source(tmp_path)


@pytest.mark.parametrize("options", [{}, {"folds": 3}])
def test_one_patient_for_all_is_told_with_where_it_was_read(tmp_path, options):
    for label in ("brain", "femur"):
        for number in range(6):
            picture(tmp_path / label / "ANON" / f"{number}.png")
    with pytest.raises(ValueError, match=r"one patient .*brain, femur.*--group_pattern"):
        read_source(tmp_path, test=0, **options)


def test_the_column_of_one_patient_for_all_is_named(folder, write):
    rows = [{"image": f"{name}.png", "label": label, "mrn": 7} for name, label in (("a", "x"), ("b", "y"), ("c", "y"))]
    with pytest.raises(ValueError, match="one patient by the column 'mrn'"):
        load_datalist(write(rows, "t.csv"), columns={"group": "mrn"})
