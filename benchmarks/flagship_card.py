"""What the shipped student answers: by class and source on the rows that trained nobody, and on other pictures.

    python benchmarks/flagship_card.py --model bundle/models/student.int8.onnx --data DATA --frames runs/frames

``DATA`` is the folder of ``planes.csv``, ``hc18``, ``brain_planes`` and ``hippocampus``; ``--frames`` what
``flagship_frames.py`` wrote. Prints the tables of the model card.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.evaluation.scores.intervals import Interval, intervals
from monai_fetalkd.evaluation.scores.predictions import Predictions
from monai_fetalkd.ultrasound.frames import read_frame
from monai_fetalkd.utils.markdown import markdown_table

_PICTURES = 200  # of each kind that is no ultrasound
_SIDE = 480


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--split", default="val", help="rows of planes.csv that nobody was trained on (val)")
    arguments = parser.parse_args()
    recognizer = Recognizer(arguments.model, backend="onnxruntime")
    print(f"\nrows '{arguments.split}'\n")
    rows = [row for row in _rows(arguments.frames / "whole.csv") if row["split"] == arguments.split]
    print(_planes(recognizer, rows))
    print(f"\nother pictures (threshold {recognizer.threshold})\n")
    print(_others(recognizer, arguments.data, rows))


def _planes(recognizer: Recognizer, rows: Sequence[dict[str, str]]) -> str:
    names = recognizer.class_names
    listed = [
        {"image": row["image"], "label": names.index(row["label"]), "group": row["group_id"], "source": row["dataset"]}
        for row in rows
    ]
    probabilities = np.stack([recognizer.file(row["image"]) for row in rows])
    predictions = Predictions.from_rows(names, listed, probabilities)
    table = [["score", "value (95 % interval of patients)"]]
    table += [
        [name, f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"] for name, score in _headline(predictions)
    ]
    right = predictions.classes == predictions.labels
    for what, values in (("class", [row["label"] for row in rows]), ("source", [row["dataset"] for row in rows])):
        for value in dict.fromkeys(sorted(values)):
            mine = np.array([each == value for each in values])
            table.append([f"right, {what} {value}", f"{right[mine].sum()} of {mine.sum()}"])
    sure = probabilities.max(1) >= (recognizer.threshold or 0)
    table.append(["answered", f"{sure.sum()} of {len(rows)}, of which {right[sure].sum()} right"])
    return markdown_table(table)


def _headline(predictions: Predictions) -> Iterator[tuple[str, Interval]]:
    found = intervals(predictions)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "negative_log_likelihood", "expected_calibration_error"):
        yield name.replace("_", " "), found[name]


def _others(recognizer: Recognizer, data: Path, rows: Sequence[dict[str, str]]) -> str:
    kinds: dict[str, Iterable[NDArray]] = {
        "HC18, all fetal heads": (recognizer.file(path) for path in sorted((data / "hc18" / "images").iterdir())),
        "brain planes": (recognizer.file(path) for path in sorted((data / "brain_planes" / "Images").iterdir())),
        "hippocampus MR, middle slices": map(recognizer, _slices(data / "hippocampus")),
        "parts of two photographs": map(recognizer, _photographs()),
        "validation frames, inverted": (recognizer(255 - read_frame(row["image"]).pixels) for row in rows),
        **{kind: map(recognizer, pictures) for kind, pictures in _generated().items()},
    }
    table = [["pictures", "number", "no plane: undecided or 'Other'", "Fetal brain", "another plane"]]
    for kind, answers in kinds.items():
        probabilities = np.stack(list(answers))
        classes = np.array([recognizer.class_names[index] for index in probabilities.argmax(1)])
        none = (probabilities.max(1) < (recognizer.threshold or 0)) | (classes == "Other")
        brain = ~none & (classes == "Fetal brain")
        shares = [f"{share.mean():.3f}" for share in (none, brain, ~none & ~brain)]
        table.append([kind, str(len(classes)), *shares])
    return markdown_table(table)


def _slices(folder: Path) -> Iterator[NDArray]:
    for path in sorted((folder / "images").glob("*.nii.gz")):
        volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
        grey = volume[:, :, volume.shape[2] // 2].T
        yield np.clip(255 * grey / max(float(grey.max()), 1.0), 0, 255)


def _photographs() -> Iterator[NDArray]:
    """Squares of a temple and of a flower, which come with scikit-learn."""
    random = np.random.default_rng(1)
    photographs = [np.asarray(Image.fromarray(image).convert("L")) for image in load_sample_images().images]
    for number in range(_PICTURES):
        picture, side = photographs[number % 2], int(random.integers(120, 420))
        top, left = (random.integers(0, size - side) for size in picture.shape)
        yield picture[top : top + side, left : left + side]


def _generated() -> dict[str, list[NDArray]]:
    random = np.random.default_rng(1)  # other pictures than those of training, and other kinds
    shape = (_SIDE, _SIDE)
    discs = []
    for _ in range(_PICTURES):
        rows, columns = np.indices(shape)
        row, column, radius = random.uniform(100, 380), random.uniform(100, 380), random.uniform(20, 150)
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        discs.append(random.uniform(50, 255) * inside)
    return {
        "black": [np.zeros(shape)],
        "noise of another size": [
            np.kron(random.integers(0, 256, (60, 60)), np.ones((8, 8))) for _ in range(_PICTURES)
        ],
        "discs on black": discs,
        "slopes": [_slope(random) for _ in range(_PICTURES)],
        "lines of letters": [_letters(random) for _ in range(_PICTURES)],
    }


def _slope(random: np.random.Generator) -> NDArray:
    rows, columns = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    down, across, curved = random.uniform(-1, 1, 3)
    levels = down * rows + across * columns + curved * (rows**2 + columns**2)
    return 255 * (levels - levels.min()) / np.ptp(levels)


def _letters(random: np.random.Generator) -> NDArray:
    paper = int(random.integers(2)) * 255
    page = Image.new("L", (_SIDE, _SIDE), paper)
    for _ in range(random.integers(5, 25)):
        text = "".join(map(chr, random.integers(65, 120, 30)))
        place, size = random.uniform(0, (200, 460)), float(random.uniform(10, 40))
        ImageDraw.Draw(page).text(tuple(place), text, fill=255 - paper, font_size=size)
    return np.asarray(page)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
