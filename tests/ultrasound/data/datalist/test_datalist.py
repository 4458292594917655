from __future__ import annotations

import hashlib
import json

import pytest

from monai_fetalkd.ultrasound.data.datalist import load_datalist, read_source

CLASSES = ["abdomen", "brain", "femur"]
DATALIST = {
    "training": [{"image": "a.png", "label": 0, "group": "p1"}, {"image": "b.png", "label": "brain", "group": "p2"}],
    "validation": [{"image": "c.png", "label": 2}],
}
TABLE = "image,label,group,split\na.png,abdomen,p1,train\nb.png,1,p2,train\nc.png,femur,p3,val\n"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (DATALIST, "datalist.json"),
        (TABLE, "t.csv"),
        (TABLE.replace(",", "\t"), "t.tsv"),
        (TABLE.replace(",", ";"), "t.csv"),
    ],
)
def test_a_datalist_and_a_table_give_the_same_frames(folder, write, content, name):
    datalist = load_datalist(write(content, name), CLASSES, plain_groups=True)
    rows = datalist.section("training")
    assert [row["label"] for row in rows] == [0, 1]
    assert [row["image"] for row in rows] == [str(folder / "a.png"), str(folder / "b.png")]
    assert [row["group"] for row in rows] == ["p1", "p2"]
    assert [row["label"] for row in datalist.section("validation")] == [2]


def test_a_folder_is_read_by_the_datalist_in_it(folder, write):
    write(DATALIST)
    assert len(load_datalist(folder, CLASSES).section("training")) == 2


def test_a_datalist_of_someone_else_loads_with_a_group_for_each_frame(folder, write):
    content = {"name": "elsewhere", "training": [{"image": "a.png", "label": 0}, {"image": "b.png", "label": 1}]}
    rows = load_datalist(write(content), CLASSES, plain_groups=True).section("training")
    assert [(row["group"], row["source"]) for row in rows] == [("a.png", "elsewhere"), ("b.png", "elsewhere")]


def test_a_datalist_without_validation_stays_without(write):
    content = {"training": [{"image": "a.png", "label": 0}], "testing": [{"image": "b.png", "label": 1}]}
    datalist = load_datalist(write(content), CLASSES)
    with pytest.raises(ValueError, match=r"has no frames in 'validation' \(1 in training, 1 in testing\)\.$"):
        datalist.section("validation")


def test_class_names_match_whatever_their_case_blanks_and_hyphens(write):
    content = {
        "labels": {"0": "fetal_brain", "1": "TRANS-THALAMIC"},
        "training": [{"image": "a.png", "label": "Fetal Brain"}],
    }
    (row,) = load_datalist(write(content), ["Fetal brain", "Trans thalamic"]).section("training")
    assert row["label"] == 0


def test_a_datalist_of_other_classes_is_refused_with_both_named(write):
    path = write({"labels": {"0": "brain", "1": "abdomen"}, "training": [{"image": "a.png", "label": 0}]})
    with pytest.raises(ValueError, match=r"\(0 brain, 1 abdomen\).*\(0 abdomen, 1 brain\)"):
        load_datalist(path, ["abdomen", "brain"])


def test_a_group_in_two_sections_is_refused_for_training_and_shown_to_who_asks(folder, write):
    path = write(TABLE.replace("p3", "p1"), "t.csv")
    with pytest.raises(ValueError, match=r"'p1' is in 'training' \('.*a\.png'\) and 'validation' \('.*c\.png'\)"):
        load_datalist(path, CLASSES, plain_groups=True)
    shared = read_source(path, CLASSES, plain_groups=True).shared_groups()
    assert {group: set(first) for group, first in shared.items()} == {"p1": {"training", "validation"}}


def test_a_saved_datalist_reads_as_it_was_from_wherever_it_lies(folder, clinic, tmp_path_factory):
    made = read_source(clinic, seed=3)
    path = tmp_path_factory.mktemp("elsewhere") / "deep" / "planes.json"
    made.save(path)
    content = json.loads(path.read_text())
    assert all(not row["image"].startswith("/") for row in content["training"])
    again = read_source(path)
    assert again.class_names == made.class_names
    for section, rows in made.sections.items():
        assert [{**row, "image": None} for row in rows] == [{**row, "image": None} for row in again.sections[section]]
        assert all(
            (folder / row["image"]).samefile(other["image"])
            for row, other in zip(rows, again.sections[section], strict=True)
        )


def test_provenance_tells_where_the_frames_came_from_and_how_they_were_split(clinic, tmp_path):
    read_source(clinic, val=0.2, test=0.25, seed=7).save(tmp_path / "planes.json")
    content = json.loads((tmp_path / "planes.json").read_text())
    provenance = content["provenance"]
    assert provenance["made_by"].startswith("monai_fetalkd ")
    assert provenance["source"]["name"] == "clinic.csv"
    assert provenance["source"]["sha256"] == hashlib.sha256(clinic.read_bytes()).hexdigest()
    assert {"val": 0.2, "test": 0.25, "seed": 7}.items() <= provenance["settings"].items()
    assert provenance["counts"]["training"]["brain"] == sum(row["label"] == 1 for row in content["training"])
    assert str(clinic.parent) not in json.dumps(provenance)


def test_each_fold_is_validation_once_and_testing_stays_apart(clinic, tmp_path):
    read_source(clinic, folds=4).save(tmp_path / "planes.json")
    loaded = [load_datalist(tmp_path / "planes.json", CLASSES, fold=fold) for fold in range(4)]
    images = [{row["image"] for row in datalist.section("validation")} for datalist in loaded]
    everything = {row["image"] for section in ("training", "validation") for row in loaded[0].section(section)}
    assert sum(map(len, images)) == len(set.union(*images)) == len(everything)
    assert all(datalist.section("testing") == loaded[0].section("testing") for datalist in loaded)
    assert not everything & {row["image"] for row in loaded[0].section("testing")}


def test_folds_are_never_taken_for_a_validation_section(clinic, tmp_path):
    read_source(clinic, folds=4).save(tmp_path / "planes.json")
    with pytest.raises(ValueError, match="'validation' .*4 folds"):
        load_datalist(tmp_path / "planes.json", CLASSES).section("validation")
    with pytest.raises(ValueError, match="fold 4: .*0, 1, 2, 3"):
        load_datalist(tmp_path / "planes.json", CLASSES, fold=4)
    with pytest.raises(ValueError, match="fold 0: .*without folds"):
        load_datalist(clinic, CLASSES, fold=0)


def test_a_new_split_forgets_the_old_sections_and_folds(clinic, tmp_path):
    read_source(clinic, folds=4).save(tmp_path / "planes.json")
    anew = read_source(tmp_path / "planes.json", new_split=True, val=0.3)
    assert set(anew.sections) == {"training", "validation", "testing"}
    assert not any("fold" in row for rows in anew.sections.values() for row in rows)


@pytest.mark.parametrize(
    ("content", "name", "error", "message"),
    [
        (None, "missing.json", FileNotFoundError, "The dataset '.*missing.json' does not exist"),
        (None, "", FileNotFoundError, "There is no 'datalist.json' in the folder"),
        ("hello", "notes.md", ValueError, r"is no datalist \(.json\) and no table"),
        ("{", "datalist.json", ValueError, "is no valid JSON"),
        ("[1]", "datalist.json", ValueError, "must be a JSON object"),
        ({"training": []}, "datalist.json", ValueError, r"no frames in 'training' \(none at all\)"),
        ({"validation": DATALIST["validation"]}, "datalist.json", ValueError, r"'training' \(1 in validation\)"),
        (
            {"training": [{"image": "a.png"}]},
            "datalist.json",
            ValueError,
            "number 1 of 'training': there is no 'label'",
        ),
        ({"training": ["a.png"]}, "datalist.json", ValueError, "'image' and 'label', not 'a.png'"),
        ({"labels": ["x"], "training": []}, "datalist.json", ValueError, "must give a name to each label from 0"),
        (
            {"training": [{"image": "z.png", "label": 0}]},
            "datalist.json",
            FileNotFoundError,
            "1 of the 1 .* image '.*z.png'",
        ),
        (
            {"training": [{"image": "a.png", "label": 3}]},
            "datalist.json",
            ValueError,
            "label 3 of '.*a.png' is outside",
        ),
        ({"training": [{"image": "a.png", "label": -1}]}, "datalist.json", ValueError, "label -1 of"),
        ({"training": [{"image": "a.png", "label": 1.5}]}, "datalist.json", ValueError, "label 1.5 of"),
        ({"training": [{"image": "a.png", "label": True}]}, "datalist.json", ValueError, "label True of"),
        ({"training": [{"image": "a.png", "label": "heart"}]}, "datalist.json", ValueError, "0 abdomen, 1 brain"),
        ("image,label,split\n", "t.csv", ValueError, "no frames in 'training'"),
        ('{"training": [], "training": []}', "datalist.json", ValueError, "key 'training' is there twice"),
        ({"training": [], "train": []}, "datalist.json", ValueError, "two lists for training: 'training' and 'train'"),
        ({"training": [{"image": "a.png", "label": None}]}, "datalist.json", ValueError, "there is no 'label'"),
        ({"training": [{"image": "a.png", "label": "nan"}]}, "datalist.json", ValueError, "there is no 'label'"),
        ({"training": [{"image": "a.png", "label": 0, "frame": "2"}]}, "datalist.json", ValueError, "frame '2' is no"),
    ],
)
def test_what_is_wrong_with_a_datalist_is_said_in_one_sentence(folder, write, content, name, error, message):
    path = folder / name if content is None else write(content, name)
    with pytest.raises(error, match=message) as caught:
        load_datalist(path, CLASSES).section("training")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "ignore"}, "missing must be 'error' or 'skip'"),
        ({"class_names": []}, "outside the class table"),
        ({"class_names": ["brain", "Brain"]}, "different from each other"),
        ({"val": 0.7}, "at most 0.5, got 0.7"),
        ({"test": -0.1}, "at most 0.5, got -0.1"),
        ({"group_pattern": "(p[0-9])"}, "has no use for group_pattern: this is for another kind"),
        ({"folds": 1}, "Folds must be 2 or more"),
        ({"folds": 100}, "too few for 100 folds"),
    ],
)
def test_options_outside_their_range_are_refused(clinic, options, message):
    with pytest.raises(ValueError, match=message):
        read_source(clinic, **{"class_names": CLASSES, **options})


def test_images_that_do_not_exist_are_left_out_by_choice_and_counted(folder, clinic, caplog):
    for view in ("brain-0-0", "femur-0-0"):
        (folder / f"{view}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of the 237 frames .*brain-0-0\.png'.*--missing skip"):
        read_source(clinic)
    datalist = read_source(clinic, missing="skip")
    assert sum(map(len, datalist.sections.values())) == 235
    ((reason, count),) = datalist.provenance["left_out"].items()
    assert count == 2
    assert f"2 {reason}" in caplog.text


@pytest.mark.parametrize("value", [None, float("nan"), "None", ""])
def test_a_group_of_no_value_is_none(write, value, caplog):
    rows = [{"image": f"{name}.png", "label": 0, "group": value} for name in "abc"]
    rows = load_datalist(write({"training": rows}), CLASSES, plain_groups=True).section("training")
    assert [row["group"] for row in rows] == ["a.png", "b.png", "c.png"]
    assert "3 file(s)" in caplog.text


def test_a_json_with_byte_order_mark_and_other_names_of_splits_is_read(folder):
    content = {
        "train": [{"image": "A.png", "label": 0}],
        "test": [{"image": "b", "label": 1}],
        "extra": [{"image": "c"}],
    }
    (folder / "l.json").write_text(json.dumps(content), encoding="utf-8-sig")
    datalist = load_datalist(folder / "l.json", CLASSES)
    assert [len(datalist.section(name)) for name in ("training", "testing")] == [1, 1]
    ((reason, count),) = datalist.provenance["left_out"].items()
    assert ("'extra'" in reason, count) == (True, 1)


@pytest.mark.parametrize(("one", "other"), [("007", "7"), ("P07", "p7"), ("7.0", "7"), ("MRN 0012", "MRN 12")])
def test_ids_that_differ_by_zeros_or_case_are_of_one_patient(write, one, other, caplog):
    path = write(f"image,label,group\na.png,0,{one}\nb.png,1,{other}\nc.png,1,71\n", "t.csv")
    rows = read_source(path, CLASSES, val=0, test=0, plain_groups=True).section("training")
    assert rows[0]["group"] == rows[1]["group"] != rows[2]["group"]
    assert "1 patient id(s)" in caplog.text
    assert "a.png" in caplog.text


def test_a_frame_listed_again_is_counted_and_left_out(write):
    path = write("image,label,group\na.png,0,p\nb.png,1,q\n./a.png,abdomen,p\n", "t.csv")
    datalist = read_source(path, CLASSES, val=0, test=0)
    assert len(datalist.section("training")) == 2
    assert list(datalist.provenance["left_out"].values()) == [1]


@pytest.mark.parametrize("again", ["brain,p", "abdomen,q"])
def test_a_frame_with_two_labels_or_patients_is_refused_for_training_and_shown_to_who_asks(folder, write, again):
    (folder / "link.png").symlink_to(folder / "a.png")
    path = write(f"image,label,group\na.png,abdomen,p\nb.png,brain,q\nlink.png,{again}\n", "t.csv")
    options = {"val": 0, "test": 0}
    with pytest.raises(ValueError, match=r"1 frame.*a\.png' is 'abdomen'"):
        load_datalist(path, CLASSES, **options)
    ((first, second),) = read_source(path, CLASSES, **options).contradictions()
    assert (first[0], second[1]["image"]) == ("training", str(folder / "link.png"))


def test_the_classes_are_those_of_the_source_unless_they_are_given(clinic, tmp_path):
    read_source(clinic, ["femur", "brain", "abdomen"]).save(tmp_path / "planes.json")
    assert load_datalist(tmp_path / "planes.json").class_names == ["femur", "brain", "abdomen"]
    with pytest.raises(ValueError, match=r"--class_names \"\['femur', 'brain', 'abdomen'\]\""):
        load_datalist(tmp_path / "planes.json", CLASSES)


def test_a_class_without_any_frame_is_told(clinic, caplog):
    read_source(clinic, [*CLASSES, "heart"])
    assert "'heart' has no frame" in caplog.text
