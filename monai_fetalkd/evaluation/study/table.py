"""The results of a study in one table, from the predictions that its cells wrote."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from monai_fetalkd.evaluation.scores.calibration import calibration_scores
from monai_fetalkd.evaluation.scores.intervals import (
    Interval,
    aligned,
    difference_intervals,
    resampled_scores,
    score_intervals,
)
from monai_fetalkd.evaluation.scores.predictions import Predictions, read_predictions
from monai_fetalkd.evaluation.scores.text import interval_text
from monai_fetalkd.evaluation.study.plan import Cell, Study
from monai_fetalkd.utils.markdown import markdown_table

__all__ = ["study_result", "study_table"]

_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "negative_log_likelihood": "NLL",
    "expected_calibration_error": "ECE",
}


def study_result(
    study: Study,
    output_dir: str | os.PathLike[str],
    *,
    split: str = "testing",
    arms: Collection[str] | None = None,
    seeds: Sequence[int] | None = None,
    repeats: int = 1000,
) -> dict[str, Any]:
    """Score what is finished of a study.

    A seed counts once all its folds are finished by every arm; until the first one is, the folds of one seed that are.
    So all arms and seeds are scored on the same frames. For each seed the predictions of the folds are pooled and
    scored; the score of an arm is the mean over the seeds. Its interval, and that of its difference to a reference, is
    of a bootstrap that draws patients: in each resample all seeds and all arms are scored on the frames of the same
    patients. So the intervals tell how sure the figures are with regard to other patients, and not to other seeds.

    Args:
        study: the study.
        output_dir: its folder.
        split: ``"testing"``, or ``"validation"``, on which the checkpoints were chosen.
        arms: names of the arms wanted, all by default; what they start from comes with them.
        seeds: seeds instead of those of the study.
        repeats: number of resamples.

    Returns:
        Plain values for JSON, NaN as None: ``arms`` by name, each with ``steps``, ``metrics``, ``differences`` by
        reference, and ``accuracy_by_seed``; ``cells``, ``settings``, ``versions`` and ``notes``.

    Raises:
        ValueError: when there is no fold and seed of which every arm is finished.
    """
    cells = list(study.cells(output_dir, arms, seeds))
    results = {cell.folder: json.loads(cell.result.read_text("utf-8")) for cell in cells if cell.result.is_file()}
    counted = _counted(cells, results)
    if not counted:
        raise ValueError(
            f"No table can be made yet: {len(results)} of {len(cells)} cells are finished in '{output_dir}', "
            "but there is no fold and seed of which all are."
        )
    scored = {cell.arm for cell in cells if cell.scored}
    names = [name for name in study.arms if name in scored]
    predictions = _predictions([cell for cell in counted if cell.scored], names, split)
    by_arm = _resampled(predictions, repeats)
    steps = {name: [_steps(cell, results) for cell in counted if cell.arm == name] for name in names}
    return {
        "version": 1,
        "split": split,
        "bootstrap": {"repeats": repeats, "seed": 0, "unit": "group"},
        "settings": asdict(study),
        "versions": [dict(pairs) for pairs in {tuple(result["versions"].items()): 0 for result in results.values()}],
        "cells": {"finished": len(results), "counted": len(counted), "all": len(cells)},
        "arms": {
            name: {
                "steps": {"low": min(steps[name]), "high": max(steps[name])},
                "metrics": _plain(score_intervals(by_arm[name])),
                "differences": {
                    reference: _plain(difference_intervals(by_arm[reference], by_arm[name]))
                    for reference in study.references
                    if reference in names and reference != name
                },
                "accuracy_by_seed": {str(seed): _accuracy(table) for seed, table in predictions[name].items()},
            }
            for name in names
        },
        "notes": _notes(study, cells, counted, results, steps),
    }


def study_table(result: Mapping[str, Any]) -> str:
    """The table of a study in Markdown, aligned, with its notes below.

    Args:
        result: what :func:`study_result` returns.

    Returns:
        The table.
    """
    references = [name for name in result["settings"]["references"] if name in result["arms"]]
    above = [f"accuracy above {name}" for name in references]
    rows = [["arm", "steps", *_METRICS.values(), *above, "accuracy by seed"]]
    for name, arm in result["arms"].items():
        low, high = arm["steps"]["low"], arm["steps"]["high"]
        differences = [arm["differences"].get(reference) for reference in references]
        rows.append(
            [
                name,
                str(low) if low == high else f"{low} to {high}",
                *(interval_text(arm["metrics"][metric]) for metric in _METRICS),
                *("" if found is None else interval_text(found["accuracy"], "+") for found in differences),
                ", ".join(f"{value:.3f}" for value in arm["accuracy_by_seed"].values()),
            ]
        )
    return "\n".join([markdown_table(rows), "", *result["notes"]])


def _counted(cells: Sequence[Cell], results: Collection[Path]) -> list[Cell]:
    """The cells of the seeds whose folds are all finished, else those of the finished folds of one seed."""
    folds: dict[int, dict[int | None, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        folds[cell.seed][cell.fold].append(cell)
    finished = {
        seed: [unit for unit in units.values() if all(cell.folder in results for cell in unit)]
        for seed, units in folds.items()
    }
    whole = [seed for seed in folds if len(finished[seed]) == len(folds[seed])]
    counted = whole or [max(finished, key=lambda seed: len(finished[seed]))]
    return [cell for seed in counted for unit in finished[seed] for cell in unit]


def _predictions(cells: Sequence[Cell], names: Sequence[str], split: str) -> dict[str, dict[int, Predictions]]:
    """The predictions by arm and seed, of all folds together, and all of the same frames in the same order."""
    parts: dict[str, dict[int, list[Predictions]]] = {name: defaultdict(list) for name in names}
    for cell in cells:
        parts[cell.arm][cell.seed].append(read_predictions(cell.predictions(split)))
    pooled = {name: {seed: _pooled(tables) for seed, tables in seeds.items()} for name, seeds in parts.items()}
    first = next(iter(pooled[names[0]].values()))
    return {
        name: {
            seed: aligned(first, table, f"'{names[0]}'", f"'{name}' of seed {seed}") for seed, table in seeds.items()
        }
        for name, seeds in pooled.items()
    }


def _pooled(tables: Sequence[Predictions]) -> Predictions:
    def chained(name: str) -> tuple[str, ...]:
        return tuple(chain.from_iterable(getattr(table, name) for table in tables))

    return Predictions(
        tables[0].class_names,
        chained("files"),
        np.concatenate([table.labels for table in tables]),
        np.concatenate([table.probabilities for table in tables]),
        chained("groups"),
        chained("sources"),
        chained("machines"),
    )


def _resampled(predictions: Mapping[str, Mapping[int, Predictions]], repeats: int) -> dict[str, dict[str, np.ndarray]]:
    """By arm and metric the mean over the seeds, of all frames and of each resample, the same resamples for all."""
    frames = next(iter(next(iter(predictions.values())).values()))
    position = {file: index for index, file in enumerate(frames.files)}

    def mean_scores(drawn: Predictions) -> dict[tuple[str, str], float]:
        indices = np.array([position[file] for file in drawn.files])
        means: dict[tuple[str, str], float] = {}
        for name, seeds in predictions.items():
            rows = [_scores(table.take(indices)) for table in seeds.values()]
            means |= {(name, metric): float(np.mean([row[metric] for row in rows])) for metric in _METRICS}
        return means

    resampled = resampled_scores(frames, mean_scores, repeats)
    return {name: {metric: resampled[name, metric] for metric in _METRICS} for name in predictions}


def _scores(predictions: Predictions) -> dict[str, float]:
    """The scores of the table alone, as :func:`monai_fetalkd.evaluation.scores.scores` has them among others.

    It takes milliseconds for these, and there are as many resamples as a thousand arms by seeds.
    """
    count = len(predictions.class_names)
    pairs = np.bincount(predictions.labels * count + predictions.classes, minlength=count * count)
    confusion = pairs.reshape(count, count)
    right, labelled, decided = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    there, occurs = labelled > 0, labelled + decided > 0
    return {
        "accuracy": right.sum() / confusion.sum(),
        "balanced_accuracy": (right[there] / labelled[there]).mean(),
        "macro_f1": (2 * right[occurs] / (labelled + decided)[occurs]).mean(),
        **calibration_scores(predictions),
    }


def _steps(cell: Cell, results: Mapping[Path, Mapping[str, Any]]) -> int:
    """Optimizer steps of a network, those of the stage it starts from included."""
    return results[cell.folder]["steps"] + (0 if cell.start_from is None else results[cell.start_from]["steps"])


def _notes(
    study: Study,
    cells: Sequence[Cell],
    counted: Sequence[Cell],
    results: Mapping[Path, Mapping[str, Any]],
    steps: Mapping[str, Sequence[int]],
) -> list[str]:
    seeds = list(dict.fromkeys(str(cell.seed) for cell in counted))
    folds = len({cell.fold for cell in counted})
    what = f"Mean over {len(seeds)} seed(s) ({', '.join(seeds)})"
    if study.folds is not None:
        what += f" of the pooled predictions of {folds} of {study.folds} folds"
    notes = [f"{what}, with 95 % intervals of a bootstrap of patients."]
    students = [name for name in study.students() if name in steps]
    alike = len({tuple(steps[name]) for name in students}) <= 1
    notes.append(
        "Steps are of the optimizer, an earlier stage included. "
        + ("All students took the same number." if alike else "The students did not take the same number: beware.")
    )
    starts = defaultdict(set)
    for cell in counted:
        if cell.arm in students:
            starts[cell.fold, cell.seed].add(results[cell.folder]["initial_weights"])
    if any(len(weights) > 1 for weights in starts.values()):
        notes.append("The students of a seed did not all start from the same initial weights.")
    if missing := len(cells) - len(results):
        notes.append(f"{missing} of {len(cells)} cells are missing; {len(counted)} count here.")
    return notes


def _accuracy(predictions: Predictions) -> float:
    return float((predictions.classes == predictions.labels).mean())


def _plain(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: None if math.isnan(value) else value for key, value in asdict(interval).items()}
        for name, interval in intervals.items()
    }
