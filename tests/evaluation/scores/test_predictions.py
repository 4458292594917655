from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from monai_fetalkd.evaluation.scores import Predictions, read_predictions

CLASSES = ("abdomen", "brain, axial", "other")
HEADER = "file,group,source,machine,label,abdomen,brain\n"


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(
        class_names=CLASSES,
        files=("a.png", "folder, one/b.png", "cine.dcm#3", "cine.dcm#4"),
        labels=np.array([0, 1, 2, 1]),
        probabilities=np.random.default_rng(0).dirichlet(np.ones(3), 4),
        groups=("p1", "p2", "p3", "p3"),
        sources=("Hôpital", "", "x", "x"),
        machines=("", 'the "new" one', "m", "m"),
    )


def assert_equal(one, other):
    for name in ("class_names", "files", "groups", "sources", "machines"):
        assert getattr(one, name) == getattr(other, name)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_a_table_that_is_written_and_read_is_the_same_to_the_last_bit(predictions, tmp_path):
    predictions.write(tmp_path / "new folder" / "student.csv")
    assert_equal(read_predictions(tmp_path / "new folder" / "student.csv"), predictions)


def test_probabilities_of_a_softmax_in_float32_are_written_and_read_the_same(tmp_path):
    logits = np.random.default_rng(0).normal(scale=5, size=(200, 6)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = [{"image": f"{number}.png", "label": 0} for number in range(200)]
    predictions = Predictions.from_rows("abcdef", rows, probabilities)
    np.testing.assert_allclose(predictions.probabilities, probabilities, rtol=1e-6)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, rtol=1e-15)
    predictions.write(tmp_path / "student.csv")
    assert_equal(read_predictions(tmp_path / "student.csv"), predictions)


def test_the_file_has_the_names_of_the_classes_for_labels_and_columns(predictions, tmp_path):
    predictions.take([1]).write(tmp_path / "student.csv")
    header, line = (tmp_path / "student.csv").read_text(encoding="utf-8").splitlines()
    assert header == 'file,group,source,machine,label,abdomen,"brain, axial",other'
    assert line.startswith('"folder, one/b.png",p2,,"the ""new"" one","brain, axial",0.')


def test_the_rows_of_a_datalist_give_files_groups_and_what_is_known():
    rows = [
        {"image": "a.png", "label": 1, "group": "p1", "source": "here", "machine": "m", "fold": 0},
        {"image": "cine.dcm", "frame": 0, "label": np.int64(0)},
        {"image": "cine.dcm", "frame": 7, "label": 1, "source": None},
    ]
    predictions = Predictions.from_rows(["abdomen", "brain"], rows, np.full((3, 2), 0.5))
    assert predictions.files == ("a.png", "cine.dcm#0", "cine.dcm#7")
    assert predictions.groups == ("p1", "cine.dcm", "cine.dcm")  # frames of one cine stay together
    assert predictions.sources == ("here", "", "")
    assert predictions.machines == ("m", "", "")
    assert predictions.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "b.png"}, "The label of 'b.png' is missing"),
        ({"image": "b.png", "label": None}, "The label of 'b.png' is missing"),
        (
            {"image": "b.png", "frame": 2, "label": "brain"},
            "The label of 'b.png#2' is 'brain', not the index of a class",
        ),
        ({"image": "b.png", "label": 1.0}, "The label of 'b.png' is 1.0, not the index of a class"),
        ({"image": "a.png", "label": 1}, "'a.png' is listed twice"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(row, message):
    with pytest.raises(ValueError, match=message):
        Predictions.from_rows(["abdomen", "brain"], [{"image": "a.png", "label": 0}, row], np.full((2, 2), 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("abdomen",)}, "two or more different names, but this one is \\['abdomen'\\]"),
        ({"class_names": ("abdomen", "abdomen", "other")}, "two or more different names"),
        ({"class_names": ("abdomen", "", "other")}, "two or more different names"),
        ({"class_names": ("abdomen", "brain")}, r"shape \(4, 2\), but got \(4, 3\)"),
        ({"files": ()}, "There are no frames to score"),
        ({"files": ("a.png", "b.png", "a.png", "c.png")}, "'a.png' is listed twice"),
        ({"groups": ("p1", "p2", "p3")}, "There are 4 frames, but groups have the shape \\(3,\\)"),
        ({"groups": ("p1", "", "p3", "p3")}, "'folder, one/b.png' has an empty group"),
        ({"sources": ("",)}, "There are 4 frames, but sources have the shape \\(1,\\)"),
        ({"labels": np.array([0, 1, 2])}, "There are 4 frames, but labels have the shape \\(3,\\)"),
        ({"labels": np.array([0.0, 1, 2, 1])}, "Labels are indices of classes, integers, but got float64"),
        ({"labels": np.array([0, 1, 3, 1])}, "'cine.dcm#3' has the label 3, but the 3 classes count from 0"),
        ({"labels": np.array([0, -1, 2, 1])}, "'folder, one/b.png' has the label -1"),
        ({"probabilities": [[0.5, 0.5, 0]] * 3}, r"shape \(4, 3\), but got \(3, 3\)"),
        (
            {"probabilities": [[1, 0, 0], [0, np.nan, 1]] * 2},
            "'folder, one/b.png' has the probability nan of 'brain, axial'",
        ),
        ({"probabilities": [[1, 0, 0], [0, 0, np.inf]] * 2}, "'folder, one/b.png' has the probability inf of 'other'"),
        ({"probabilities": [[1.5, -0.5, 0]] * 4}, "'a.png' has the probability -0.5 of 'brain, axial'"),
        ({"probabilities": [[1, 0, 0], [2, 3, 1]] * 2}, "probabilities of 'folder, one/b.png' sum to 6, not to 1"),
        ({"probabilities": [[0.5, 0.5, 2e-4]] * 4}, "probabilities of 'a.png' sum to 1.0002, not to 1"),
    ],
)
def test_a_table_that_cannot_be_scored_says_why(predictions, change, message):
    with pytest.raises(ValueError, match=message):
        replace(predictions, **change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns have to begin with file,group,source,machine,label, .* but they are missing"),
        ("file,label,abdomen,brain\n", "line 1: the columns .* but they are file,label,abdomen,brain"),
        ("file,group,source,machine,label\n", "two or more different names"),
        (HEADER, "There are no frames"),
        (HEADER + "a.png,p,,,brain,0.5\n", "line 2: there are 7 columns, but 6 values"),
        (
            HEADER + "a.png,p,,,brain,0.5,0.5\n\nb.png,p,,,,0.5,0.5\n",
            "line 4, column 'label': the label of 'b.png' is miss",
        ),
        (HEADER + "a.png,p,,,heart,0.5,0.5\n", "line 2, column 'label': 'heart' is none of the classes abdomen, brain"),
        (
            HEADER + 'a.png,p,,"x\ny",brain,0.5,0.5\nb.png,p,,,brain,0.5,half\n',
            "line 4, column 'brain': 'half' is no number",
        ),
        (HEADER + "a.png,p,,,brain,0.5,\n", "line 2, column 'brain': '' is no number"),
        (HEADER + "a.png,p,,,brain,0.5,nan\n", "line 2: 'a.png' has the probability nan of 'brain'"),
        (
            HEADER + "a.png,p,,,brain,0.5,0.5\nb.png,p,,,brain,0.6,0.6\n",
            "line 3: the probabilities of 'b.png' sum to 1.2",
        ),
        (HEADER + "a.png,p,,,brain,0.5,0.5\n" * 2, "line 3: 'a.png' is listed twice"),
    ],
)
def test_a_file_that_cannot_be_scored_says_where(tmp_path, text, message):
    path = tmp_path / "student.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        read_predictions(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "student.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(ValueError, match="student.csv' is no CSV file in UTF-8"):
        read_predictions(path)


def test_a_file_from_a_spreadsheet_is_read_and_files_without_group_are_their_own(tmp_path):
    path = tmp_path / "student.csv"
    path.write_bytes(("\ufeff" + HEADER + "a.png,,,,brain,0.25,0.75\n").replace("\n", "\r\n").encode())
    predictions = read_predictions(path)
    assert predictions.class_names == ("abdomen", "brain")
    assert predictions.groups == ("a.png",)
    assert predictions.labels.tolist() == [1]


@pytest.mark.parametrize("indices", [[2, 0, 2], np.array([2, 0, 2])])
def test_frames_are_taken_in_order_and_may_repeat(predictions, indices):
    taken = predictions.take(indices)
    assert len(taken) == 3
    assert taken.files == ("cine.dcm#3", "a.png", "cine.dcm#3")
    assert taken.groups == ("p3", "p1", "p3")
    assert taken.sources == ("x", "Hôpital", "x")
    assert taken.machines == ("m", "", "m")
    assert taken.labels.tolist() == [2, 0, 2]
    np.testing.assert_array_equal(taken.probabilities, predictions.probabilities[[2, 0, 2]])


def test_frames_are_taken_by_a_mask(predictions):
    assert predictions.take(np.array([False, True, False, True])).files == ("folder, one/b.png", "cine.dcm#4")


def test_no_frame_and_a_frame_out_of_range_cannot_be_taken(predictions):
    with pytest.raises(ValueError, match="No frame is taken"):
        predictions.take(np.zeros(4, dtype=bool))
    with pytest.raises(IndexError):
        predictions.take([4])


def test_a_table_does_not_change_with_the_arrays_it_was_made_of(predictions):
    labels, probabilities = np.array([0, 1, 2, 1]), np.full((4, 3), 1 / 3)
    table = replace(predictions, labels=labels, probabilities=probabilities)
    labels[:], probabilities[:] = 0, 0
    assert table.labels.tolist() == [0, 1, 2, 1]
    assert table.probabilities.min() > 0
    with pytest.raises(ValueError, match="read-only"):
        table.probabilities[0, 0] = 1


def test_a_reviewer_needs_neither_torch_nor_monai():
    code = "import sys, monai_fetalkd.evaluation.scores; print({'torch', 'monai', 'ignite'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
