from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with three pictures."""
    for name in ("a.png", "b.png", "c.png"):
        Image.new("L", (32, 24), 128).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def write(folder):
    """Write a text, a JSON or, from a list of dictionaries, a CSV into the folder."""

    def written(content, name="datalist.json") -> Path:
        path = folder / name
        if isinstance(content, list) and name.endswith(".csv"):
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(content[0]))
                table.writeheader()
                table.writerows(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return written


@pytest.fixture
def clinic(folder, write) -> Path:
    """A table without a split: 40 patients, each with one to three frames of each of three classes."""
    rows = []
    for patient in range(40):
        for label in ("abdomen", "brain", "femur"):
            for view in range(1 + patient % 3):
                image = f"{label}-{patient}-{view}.png"
                (folder / image).touch()
                rows.append({"image": image, "label": label, "patient_id": f"MRN{patient:03d}"})
    return write(rows, "clinic.csv")
