from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from monai_fetalkd.ultrasound.data.check import check_datalist
from monai_fetalkd.ultrasound.data.datalist import load_datalist, read_source


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").save(folder / name)


def rows_of(datalist):
    return [row for rows in datalist.sections.values() for row in rows]


def stems(rows):
    return {(Path(row["image"]).stem, Path(row["label"]).stem) for row in rows}


def test_annotations_beside_the_images_of_hc18(tmp_path):
    for number in range(10):
        names = (f"{number:03}_HC", f"{number:03}_2HC")
        pictures(tmp_path / "training_set", *(f"{name}{end}.png" for name in names for end in ("", "_Annotation")))
    pictures(tmp_path / "test_set", "000_HC.png", "001_HC.png")
    (tmp_path / "training_set_pixel_size_and_HC.csv").touch()
    datalist = read_source(tmp_path, plain_groups=True)
    assert sum(datalist.counts()[section]["image with mask"] for section in datalist.sections) == 20
    assert set(datalist.sections) == {"training", "validation", "testing"}
    assert all(mask == f"{image}_Annotation" for image, mask in stems(rows_of(datalist)))
    assert len({row["group"] for row in rows_of(datalist)}) == 10
    assert not datalist.shared_groups()
    assert {Path(row["image"]).name for row in datalist.unlabelled} == {"000_HC.png", "001_HC.png"}


@pytest.mark.parametrize(
    ("images", "masks"), [("imagesTr", "labelsTr"), ("images", "masks"), ("Image", "Segmentation")]
)
def test_folders_of_images_and_of_masks(tmp_path, images, masks):
    pictures(tmp_path, *(f"{folder}/{number}.png" for folder in (images, masks) for number in range(8)))
    pictures(tmp_path, f"{masks}/lonely.png")
    (tmp_path / "dataset.csv").touch()
    datalist = read_source(tmp_path)
    assert stems(rows_of(datalist)) == {(str(number), str(number)) for number in range(8)}
    assert datalist.provenance["left_out"] == {"files beside the folders": 1, "masks without an image": 1}


def test_folders_of_splits_with_images_and_masks(tmp_path):
    for split in ("train", "test"):
        pictures(tmp_path / split, "images/a.png", "masks/a.png")
    assert set(read_source(tmp_path, val=0).sections) == {"training", "testing"}


@pytest.mark.parametrize("column", ["mask", "label"])
def test_a_table_with_a_column_of_masks(folder, write, column):
    pictures(folder, "m.png")
    rows = [{"image": f"{name}.png", column: "m.png", "exam_id": name} for name in "abc"]
    datalist = read_source(write(rows, "t.csv"), val=0, plain_groups=True)
    assert datalist.has_masks
    assert {row["group"] for row in rows_of(datalist)} == {"a", "b", "c"}


def test_classes_beside_masks_decide_unless_the_masks_are_asked_for(folder, write):
    rows = [{"image": f"{name}.png", "label": name, "mask": "a.png"} for name in "abc"]
    path = write(rows, "t.csv")
    assert not read_source(path, val=0, test=0).has_masks
    assert read_source(path, columns={"mask": "mask"}, val=0, test=0).has_masks


def test_the_json_of_the_decathlon_is_read_and_what_is_written_is_read_by_monai(folder, write, tmp_path_factory):
    content = {
        "name": "Hippocampus",
        "labels": {"0": "background", "1": "Anterior"},
        "training": [{"image": "./a.png", "label": "./b.png"}],
        "test": ["./c.png"],
    }
    datalist = read_source(write(content, "dataset.json"))
    assert datalist.class_names == ["background", "Anterior"]
    assert [Path(row["image"]).name for row in datalist.unlabelled] == ["c.png"]
    path = tmp_path_factory.mktemp("out") / "o.json"
    datalist.save(path)
    (row,) = load_decathlon_datalist(str(path), True, "training")
    assert (Path(row["image"]).resolve(), Path(row["label"]).resolve()) == (folder / "a.png", folder / "b.png")
    assert rows_of(read_source(path))[0]["label"].endswith("b.png")
    assert "labels" in json.loads(path.read_text())


def test_masks_are_no_classes_to_recognise(tmp_path):
    pictures(tmp_path, *(f"{folder}/{number}.png" for folder in ("images", "masks") for number in range(8)))
    with pytest.raises(ValueError, match="are masks"):
        load_datalist(tmp_path, ["abdomen", "brain"])


@pytest.mark.parametrize("missing", ["images", "masks"])
def test_images_without_masks_are_told(tmp_path, missing, write):
    pictures(tmp_path, "images/a.png", "masks/b.png")
    with pytest.raises(ValueError, match="No image .* has a mask"):
        read_source(tmp_path)
    rows = [{"image": "images/a.png", "mask": "masks/b.png"}]
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="1 of the 1 frames"):
        read_source(write(rows, "t.csv"))


def test_the_check_counts_masks_and_finds_duplicates_of_images(tmp_path):
    pictures(tmp_path, "train/images/a.png", "train/masks/a.png", "test/images/b.png", "test/masks/b.png")
    report = check_datalist(read_source(tmp_path, val=0), workers=1, progress=False)
    assert report.balance.by_section == {"training": {"image with mask": 1}, "testing": {"image with mask": 1}}
    assert [pair.across_sections for pair in report.duplicates] == [True]
    assert report.unreadable == []


def test_the_real_heads_are_split_by_examination(shared_dir):
    datalist = read_source(shared_dir / "data" / "hc18", plain_groups=True)
    assert sum(map(len, datalist.sections.values())) == 450
    assert not datalist.shared_groups()
    assert len({row["group"] for row in rows_of(datalist)}) == 366
