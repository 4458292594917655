from __future__ import annotations

import json

import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged
from PIL import Image

from monai_fetalkd.data import FrameDataset, load_datalist

CLASSES = ["abdomen", "brain", "femur"]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / name)
    return tmp_path


def write(folder, content, name="datalist.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


DATALIST = {
    "training": [{"image": "a.png", "label": 0, "group": "p1"}, {"image": "b.png", "label": "brain", "group": "p2"}],
    "validation": [{"image": "c.png", "label": 2}],
}
TABLE = "image,label,group,split\na.png,abdomen,p1,train\nb.png,1,p2,train\nc.png,femur,p3,val\n"


@pytest.mark.parametrize(("content", "name"), [(DATALIST, "datalist.json"), (TABLE, "planes.csv")])
def test_a_datalist_and_a_table_give_the_same_frames(folder, content, name):
    path = write(folder, content, name)
    rows = load_datalist(path, "training", CLASSES)
    assert [row["label"] for row in rows] == [0, 1]
    assert [row["image"] for row in rows] == [str(folder / "a.png"), str(folder / "b.png")]
    assert [row["group"] for row in rows] == ["p1", "p2"]
    assert [row["label"] for row in load_datalist(path, "validation", CLASSES)] == [2]


def test_a_folder_is_read_by_the_datalist_in_it(folder):
    write(folder, DATALIST)
    assert len(load_datalist(folder, "training", CLASSES)) == 2


@pytest.mark.parametrize(
    ("content", "name", "error", "message"),
    [
        (None, "missing.json", FileNotFoundError, "The dataset '.*missing.json' does not exist"),
        (None, "", FileNotFoundError, "There is no 'datalist.json' in the folder"),
        ("{", "datalist.json", ValueError, "is no valid JSON"),
        ("[1]", "datalist.json", ValueError, "must be a JSON object"),
        ({"training": []}, "datalist.json", ValueError, r"no frames in 'training' \(0 in training\)"),
        ({}, "datalist.json", ValueError, r"no frames in 'training' \(none at all\)"),
        ({"training": [{"image": "a.png"}]}, "datalist.json", ValueError, "row without 'image' or 'label'"),
        ({"training": [{"image": "z.png", "label": 0}]}, "datalist.json", FileNotFoundError, "image '.*z.png'"),
        (
            {"training": [{"image": "a.png", "label": 3}]},
            "datalist.json",
            ValueError,
            "label 3 of '.*a.png' is outside",
        ),
        ({"training": [{"image": "a.png", "label": -1}]}, "datalist.json", ValueError, "label -1 of"),
        ({"training": [{"image": "a.png", "label": 1.5}]}, "datalist.json", ValueError, "label 1.5 of"),
        ({"training": [{"image": "a.png", "label": "heart"}]}, "datalist.json", ValueError, "0 abdomen, 1 brain"),
        ("image,label\na.png,0\n", "t.csv", ValueError, "has no column split"),
        ("image,label,split\na.png,0,dev\n", "t.csv", ValueError, "line 2: split 'dev' is none of train, val, test"),
        ("image,label,split\n", "t.csv", ValueError, "no frames in 'training'"),
    ],
)
def test_what_is_wrong_with_a_datalist_is_said_in_one_sentence(folder, content, name, error, message):
    path = folder / name if content is None else write(folder, content, name)
    with pytest.raises(error, match=message) as caught:
        load_datalist(path, "training", CLASSES)
    assert "\n" not in str(caught.value)


def test_the_real_table_of_the_shared_frames_keeps_its_groups_apart(shared_dir):
    names = ["Fetal abdomen", "Fetal brain", "Fetal femur", "Fetal thorax", "Maternal cervix", "Other"]
    rows = {
        section: load_datalist(shared_dir / "data" / "planes.csv", section, names)
        for section in ("training", "validation", "testing")
    }
    assert [len(section) for section in rows.values()] == [324, 64, 72]
    groups = [{row["group_id"] for row in section} for section in rows.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"not an image", lambda data: data[:40]],
    ids=["truncated", "empty", "text", "header only"],
)
def test_a_frame_that_cannot_be_read_is_named_before_training(folder, damage):
    path = folder / "b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    path.write_bytes(damage(path.read_bytes()))
    rows = [{"image": str(folder / "a.png")}, {"image": str(path)}]
    with pytest.raises(ValueError, match=r"The frame '.*b\.png' cannot be read: "):
        FrameDataset(rows, Compose([LoadImaged("image", reader="PILReader")]), progress=False)
