"""The tables of the flagship: what the shipped student is trained and scored on, and frames without labels besides.

    python benchmarks/flagship_frames.py --data DATA --output_dir runs/frames

``DATA`` holds ``planes.csv`` and the frames that it lists. The shipped student sees each of them whole and cropped to
its scan sector: a network that has seen both readings can be used with ``inference.json`` alone and with
``ultrasound.json`` over it. Pictures that are no ultrasound at all (black, grey, noise, bars) join the training rows as
"Other", so that they are not taken for a plane.

``unlabelled.csv`` is ``planes.csv`` and, without labels, the frames of ``brain_planes/planes.csv`` and the training
frames of ``hc18/heads.csv``, for ``bundle/studies/unlabelled.json``. All of them show brains. Patients of both tables
of planes keep one name, by which the study leaves those out whom a fold holds out.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from monai_fetalkd.ultrasound.frames import crop_to_sector

_HEIGHT, _WIDTH = 480, 640
_EACH = 6  # pictures of each kind that is no ultrasound


def main() -> None:
    """Write the crops, the pictures and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the folder of planes.csv")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    output = arguments.output_dir.absolute()
    output.mkdir(parents=True, exist_ok=True)
    rows = _read(arguments.data / "planes.csv")
    crops = [row | {"image": str(_crop(Path(row["image"]), output / "sector"))} for row in rows]
    others = list(_no_ultrasound(output / "no_ultrasound"))
    split = {"train": "train", "val": "val", "test": "test"}
    _write(output / "estimate.csv", [*rows, *crops, *others], split)
    _write(output / "ship.csv", [*rows, *crops, *others], split | {"test": "train"})
    _write(output / "whole.csv", rows, split)
    _write(output / "sector.csv", crops, split)
    _write(output / "unlabelled.csv", [*rows, *_unlabelled(arguments.data)], split | {"unlabelled": "unlabelled"})


def _read(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return [row | {"image": str((table.parent / row["image"]).absolute())} for row in csv.DictReader(file)]


def _unlabelled(data: Path) -> Iterator[dict[str, str]]:
    for row in _read(data / "brain_planes" / "planes.csv"):  # of FETAL_PLANES_DB, as the Spanish rows of planes.csv
        group = f"ES-{int(row['patient_id']):05d}"
        yield {"image": row["image"], "dataset": "brain_planes", "group_id": group, "split": "unlabelled"}
    for row in _read(data / "hc18" / "heads.csv"):
        if row["split"] == "train":
            group = f"HC18-{row['exam_id']}"
            yield {"image": row["image"], "dataset": "hc18", "group_id": group, "split": "unlabelled"}


def _crop(path: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    if not target.is_file():
        frame = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        Image.fromarray(crop_to_sector(frame, None).astype(np.uint8)).save(target)
    return target


def _no_ultrasound(folder: Path) -> Iterator[dict[str, str]]:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(_EACH):
        grey = np.full((_HEIGHT, _WIDTH), random.integers(256))
        period = int(random.integers(8, 80))
        bars = 255 * (np.indices((_HEIGHT, _WIDTH))[number % 2] // period % 2)
        smooth = np.outer(np.linspace(0, 1, _HEIGHT), np.linspace(1, random.random(), _WIDTH)) * 255
        pictures = {
            "black": np.zeros((_HEIGHT, _WIDTH)),
            "grey": grey,
            "noise": random.integers(0, 256, (_HEIGHT, _WIDTH)),
            "bars": bars,
            "ramp": smooth,
        }
        for kind, picture in pictures.items():
            path = folder / f"{kind}_{number}.png"
            Image.fromarray(picture.astype(np.uint8)).save(path)
            group = f"generated-{kind}-{number}"
            yield {"image": str(path), "label": "Other", "dataset": "generated", "group_id": group, "split": "train"}


def _write(path: Path, rows: list[dict[str, str]], split: dict[str, str]) -> None:
    names = ["image", "label", "dataset", "group_id", "split"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row | {"split": split[row["split"]]} for row in rows)


if __name__ == "__main__":
    main()
