from __future__ import annotations

import unicodedata

import pytest

from monai_fetalkd.ultrasound.data.datalist import read_source

CLASSES = ["abdomen", "brain", "femur"]


def rows_of(datalist):
    return [row for rows in datalist.sections.values() for row in rows]


def test_columns_are_named_and_the_others_dropped(folder, write):
    path = write("﻿file ; plane;case;hospital;probe;who;n;name\na; brain ;17;north;C5;op 1;0;Doe^Jane\n", "t.csv")
    columns = {
        "image": "file",
        "label": "plane",
        "group": "case",
        "source": "hospital",
        "machine": "probe",
        "operator": "who",
        "frame": "n",
    }
    (row,) = rows_of(read_source(path, CLASSES, columns=columns, val=0, test=0, plain_groups=True))
    assert row == {
        "image": str(folder / "a.png"),
        "label": 1,
        "group": "17",
        "source": "north",
        "machine": "C5",
        "operator": "op 1",
        "frame": 0,
    }


def test_images_may_lie_elsewhere_and_lack_their_extension(folder, write, tmp_path_factory):
    table = tmp_path_factory.mktemp("tables") / "t.csv"
    table.write_text("image,label,split\nb,brain,train\nc.png,femur,train\n")
    rows = rows_of(read_source(table, CLASSES, images=folder, val=0))
    assert [row["image"] for row in rows] == [str(folder / "b.png"), str(folder / "c.png")]


def test_without_class_names_those_found_are_taken_in_alphabetical_order(write):
    path = write("image,label,split\na.png,femur,train\nb.png,Brain,train\nc.png,brain,test\n", "t.csv")
    assert read_source(path, val=0).class_names == ["Brain", "femur"]


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "valid", "TESTING"), ("train", "validation", "test")]
)
def test_the_sections_go_by_their_usual_names(write, words):
    lines = [f"{image}.png,brain,{word}\n" for image, word in zip("abc", words, strict=True)]
    datalist = read_source(write("image,label,split\n" + "".join(lines), "t.csv"), CLASSES)
    assert {section: len(rows) for section, rows in datalist.sections.items()} == dict.fromkeys(
        ("training", "validation", "testing"), 1
    )


def test_a_table_that_tells_training_from_testing_gets_its_validation_from_training(folder, clinic):
    lines = clinic.read_text().splitlines()
    patients = [line.rsplit(",", 1)[1] for line in lines[1:]]
    splits = ["test" if patient >= "MRN030" else "train" for patient in patients]
    clinic.write_text("\n".join([lines[0] + ",split", *map(",".join, zip(lines[1:], splits, strict=True))]))
    datalist = read_source(clinic, val=0.2, plain_groups=True)
    assert {row["group"] for row in datalist.section("testing")} == {f"MRN{patient:03d}" for patient in range(30, 40)}
    assert len({row["group"] for row in datalist.section("validation")}) == pytest.approx(6, abs=2)
    assert not datalist.shared_groups()


def test_without_a_group_column_each_file_is_a_group_and_that_is_said(write, caplog):
    path = write("image,label,frame,split\na.png,brain,0,train\na.png,brain,1,train\nb.png,brain,,train\n", "t.csv")
    groups = [row["group"] for row in rows_of(read_source(path, CLASSES, val=0))]
    assert groups[0] == groups[1] != groups[2]
    assert "2 file(s)" in caplog.text
    assert "patient_id" in caplog.text


def test_the_real_table_keeps_its_split_and_its_groups_apart(shared_dir):
    datalist = read_source(shared_dir / "data" / "planes.csv")
    assert [len(rows) for rows in datalist.sections.values()] == [324, 64, 72]
    assert datalist.class_names == [
        "Fetal abdomen",
        "Fetal brain",
        "Fetal femur",
        "Fetal thorax",
        "Maternal cervix",
        "Other",
    ]
    assert not datalist.shared_groups()
    assert {row["source"] for row in datalist.section("testing")} == {"african_planes", "fetal_planes_db"}


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("image,plane\na.png,0\n", {}, r"has no column label \(it has image, plane\)"),
        ("", {}, r"has no column image \(it has none\)"),
        ("image,label\na.png,0\n", {"group": "mrn"}, "has no column mrn"),
        ("image,label\na.png,0\n", {"patient": "mrn"}, "no meaning 'patient' for a column"),
        ("image,label,split\na.png,0,dev\n", {}, "line 2: split 'dev' is none of train, val, test"),
        ("image,label,split\na.png,0,train\nb.png,1\n", {}, "line 3: split '' is none of"),
        ("image,label\n,0\n", {}, "line 2: the image is empty"),
        ("image,label,group\na.png,0,\n", {}, "line 2: the group is empty"),
        ("image,label,frame\na.png,0,first\n", {}, "line 2: frame 'first' is no number"),
        ("image,label,label\na.png,0,1\n", {}, "2 columns for 'label'"),
        ("image,Label,LABEL\na.png,0,1\n", {}, "2 columns for 'label'"),
        ("image,label,p,p\na.png,0,1,2\n", {"group": "p"}, "2 columns for 'p'"),
        ("image,label\na.png,0\nb.png,1,p2\n", {}, "line 3: there are 3 cells for 2 columns"),
        ("sep=,\nimage,label\na.png,NaN\n", {}, "line 3: the label is 'NaN', which stands for no value"),
        *(
            (f"image,label,group\na.png,0,{word}\n", {}, "line 2: the group is")
            for word in ("nan", "None", "N/A", "NULL")
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_line(write, text, columns, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_source(write(text, "t.csv"), CLASSES, columns=columns)
    assert "\n" not in str(caught.value)


def test_labels_that_are_numbers_need_class_names(write):
    with pytest.raises(ValueError, match="label '0' is a number: say what its classes are called"):
        read_source(write("image,label\na.png,0\n", "t.csv"))


def test_a_name_of_two_files_is_refused(folder, write):
    (folder / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"image 'a' may be a\.jpg or a\.png"):
        read_source(write("image,label\na,0\n", "t.csv"), CLASSES)


def test_a_table_in_another_encoding_is_refused(folder):
    (folder / "t.csv").write_bytes("image,label\nü.png,0\n".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as CSV in UTF-8"):
        read_source(folder / "t.csv", CLASSES)


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\nimage;label;patient_id\na.png;brain;7\nb.png;femur;8\n",
        '"sep=,"\r\nimage,label,patient_id\r\na.png,brain,7\r\nb.png,femur,8\r\n',
        "Image;LABEL;Patient ID;notes;notes\na.png;brain;7;;\nb.png;femur;8\n;;;;\n ; ;;;\n",
        "image\tlabel\tpatient-id\na.png\tbrain\t7\nb.png\tfemur\t8\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_are_read_as_spreadsheets_write_them(folder, content, encoding):
    (folder / "t.csv").write_bytes(content.encode(encoding))
    datalist = read_source(folder / "t.csv", val=0, test=0, plain_groups=True)
    assert [(row["label"], row["group"]) for row in rows_of(datalist)] == [(0, "7"), (1, "8")]
    assert datalist.provenance["left_out"] == ({"empty rows": 2} if ";;;;" in content else {})


def test_images_are_found_whatever_the_spelling_of_their_names(folder, write):
    composed, decomposed = (unicodedata.normalize(form, "\u00fcber") for form in ("NFC", "NFD"))
    (folder / decomposed).mkdir()
    (folder / decomposed / f"{composed}.PNG").touch()
    path = write(f"image,label\n{composed}\\{decomposed}.png,brain\nA,femur\n", "t.csv")
    rows = rows_of(read_source(path, val=0, test=0))
    assert [row["image"] for row in rows] == [str(folder / decomposed / f"{composed}.PNG"), str(folder / "a.png")]


def test_labels_that_pandas_wrote_as_floats_are_numbers(write):
    path = write("image,label,frame\na.png,1.0,2.0\n", "t.csv")
    (row,) = rows_of(read_source(path, CLASSES, val=0, test=0))
    assert (row["label"], row["frame"]) == (1, 2)
    with pytest.raises(ValueError, match="label '1.0' is a number"):
        read_source(path)


def test_a_spreadsheet_is_to_be_saved_as_csv(folder):
    (folder / "t.xlsx").touch()
    with pytest.raises(ValueError, match="save it as CSV"):
        read_source(folder / "t.xlsx")
