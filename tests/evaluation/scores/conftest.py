from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from monai_fetalkd.evaluation.scores.predictions import Predictions
from monai_fetalkd.evaluation.scores.result import evaluate

CLASSES = ("abdomen", "brain", "femur")
REPEATS = 8
COST = {
    "parameters": 700_000,
    "macs": 116_000_000,
    "bytes": 2_800_000,
    "milliseconds": {"median": 2.5, "p95": 3.1},
    "peak_memory_bytes": 9_000_000,
}


def network(skill, frames=60, seed=0, prefix="frame", labels=None):
    """A network that is as sure as skilled; frames of twelve patients, two hospitals, and one machine that is known."""
    generator = np.random.default_rng(seed)
    labels = np.arange(frames) % 3 if labels is None else np.asarray(labels)
    logits = generator.normal(size=(len(labels), 3)) + skill * np.eye(3)[labels]
    rows = [
        {
            "image": f"{prefix}{number}.png",
            "label": int(label),
            "group": f"patient{number // 5}",
            "source": f"hospital{number % 2}",
            "machine": "Voluson" if number < 30 else "",
        }
        for number, label in enumerate(labels)
    ]
    return Predictions.from_rows(CLASSES, rows, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def networks():
    return {"teacher": network(3), "Student": network(2, seed=1)}


@pytest.fixture(scope="module")
def content(networks):
    validation = {"Student": network(2, frames=45, seed=2, prefix="validation")}
    settings = {"checkpoint": "student.pt", "seed": np.int64(3)}
    return evaluate(networks, validation, {"Student": COST}, settings, repeats=REPEATS)


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(
        files("monai_fetalkd.evaluation.scores").joinpath("metrics.schema.json").read_text(encoding="utf-8")
    )
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
