from __future__ import annotations

import json

import numpy as np
import pytest
from monai.transforms import Compose
from PIL import Image

from monai_fetalkd.ultrasound.data import annotated_rows, frame_dataset, parse_annotation, read_annotation
from monai_fetalkd.ultrasound.transforms import LoadFramed

CLASSES = ["abdomen", "brain"]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"label": "brain"}, [{"label": 1}]),
        ({"label": " BRAIN", "patient": None}, [{"label": 1}]),
        ({"label": "brain", "patient": "nan"}, [{"label": 1}]),
        ({"label": "brain", "frame": 2}, [{"label": 1, "frame": 2}]),
        ({"label": "abdomen", "patient": 7, "comment": "oblique"}, [{"label": 0, "group": "7"}]),
        (
            {"frames": [{"frame": 4, "label": "brain"}, {"frame": 0, "label": "abdomen"}]},
            [{"label": 1, "frame": 4}, {"label": 0, "frame": 0}],
        ),
    ],
)
def test_an_annotation_gives_the_labelled_frames(content, rows):
    assert parse_annotation(json.dumps(content), CLASSES) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no valid JSON"),
        (b"\xff\xfe\x00", "no valid JSON"),
        ("[]", "either 'label' or 'frames'"),
        ("{}", "either 'label' or 'frames'"),
        ('{"label": "brain", "frames": []}', "either 'label' or 'frames'"),
        ('{"frames": []}', "one frame at least"),
        ('{"frames": ["brain"]}', "one frame at least"),
        ('{"label": "liver"}', "'liver': use one of abdomen, brain"),
        ('{"label": "brain", "label": "abdomen"}', "'label' is there twice"),
        ('{"label": 1}', "use one of abdomen, brain"),
        ('{"frames": [{"label": "brain"}]}', "counted 0, 1, 2"),
        ('{"frames": [{"frame": -1, "label": "brain"}]}', "counted 0, 1, 2"),
        ('{"frames": [{"frame": true, "label": "brain"}]}', "counted 0, 1, 2"),
        ('{"frames": [{"frame": 1, "label": "brain"}, {"frame": 1, "label": "abdomen"}]}', "twice"),
    ],
)
def test_what_is_no_annotation_is_refused_in_a_sentence_that_names_it(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_annotation(text, CLASSES, "a.json")
    assert "'a.json'" in str(caught.value) or "frames' of the label" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json"):
        read_annotation(tmp_path / "none.json", CLASSES)


def test_rows_with_label_files_become_rows_of_frames(tmp_path):
    (tmp_path / "cine.json").write_text(
        '{"frames": [{"frame": 1, "label": "brain"}, {"frame": 2, "label": "abdomen"}]}'
    )
    rows = annotated_rows(
        [{"image": "cine.dcm", "label": str(tmp_path / "cine.json")}, {"image": "a.png", "label": 1}], CLASSES
    )
    assert rows == [
        {"image": "cine.dcm", "label": 1, "frame": 1, "group": "cine.dcm"},
        {"image": "cine.dcm", "label": 0, "frame": 2, "group": "cine.dcm"},
        {"image": "a.png", "label": 1},
    ]


@pytest.mark.parametrize("cached", [False, True])
def test_a_dataset_takes_labels_as_files(tmp_path, cached):
    Image.fromarray(np.arange(400).reshape(20, 20).astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text('{"label": "brain"}')
    dataset = frame_dataset(
        [{"image": str(tmp_path / "a.png"), "label": str(tmp_path / "a.json")}],
        Compose([LoadFramed("image")]),
        cache_dir=tmp_path / "cache" if cached else None,
        progress=False,
        class_names=CLASSES,
    )
    assert dataset[0]["label"] == 1
    assert dataset[0]["image"].shape == (1, 20, 20)


def test_a_byte_order_mark_is_no_part_of_an_annotation(tmp_path):
    (tmp_path / "a.json").write_text('{"label": "brain"}', encoding="utf-8-sig")
    assert read_annotation(tmp_path / "a.json", CLASSES) == [{"label": 1}]
