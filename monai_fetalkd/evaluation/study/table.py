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
from monai_fetalkd.evaluation.study.plan import CHOSEN, Cell, Study
from monai_fetalkd.utils.markdown import markdown_table

__all__ = ["study_result", "study_table"]

_FEWEST_SEEDS = 5
_Tables = dict[str, dict[int, dict[int | None, Predictions]]]

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

    A nested study tells that too: in a second interval each resample also draws as many seeds as there are, with
    replacement, the same for all arms, since those of a seed share their teacher and their initial weights. A further
    row is of the student that was chosen in each fold by its accuracy on the validation frames, mean over the seeds.
    These frames are none of the fold's test frames, so the row is the estimate of choosing and training together.

    Args:
        study: the study.
        output_dir: its folder.
        split: ``"testing"``, or ``"validation"``, on which the checkpoints were chosen.
        arms: names of the arms wanted, all by default; what they start from comes with them.
        seeds: seeds instead of those of the study.
        repeats: number of resamples.

    Returns:
        Plain values for JSON, NaN as None: ``arms`` by name, each with ``steps``, ``metrics``, ``differences`` by
        reference, and ``accuracy_by_seed``, of a nested study also ``metrics_over_seeds``, ``differences_over_seeds``
        and ``choice``, the chosen arm by fold; ``cells``, ``settings``, ``versions`` and ``notes``.

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
    counted_and_scored = [cell for cell in counted if cell.scored]
    tables = _tables(counted_and_scored, split)
    steps = {name: [_steps(cell, results) for cell in counted if cell.arm == name] for name in names}
    choice: dict[int | None, str] = {}
    if study.nested and (students := [name for name in study.students() if name in names]):
        choice = _choice(_tables(counted_and_scored, "validation"), students)
        tables[CHOSEN] = {
            seed: {fold: tables[choice[fold]][seed][fold] for fold in choice} for seed in tables[names[0]]
        }
        steps[CHOSEN] = [steps_of for name in choice.values() for steps_of in steps[name]]
        names = [*names, CHOSEN]
    predictions = _pooled_tables(tables, names)
    by_seed = _resampled(predictions, repeats)
    by_arm = _mean(by_seed, np.ones((1 + repeats, len(predictions[names[0]]))))
    over_seeds = _mean(by_seed, _seed_draws(len(predictions[names[0]]), repeats)) if study.nested else {}

    def compared(arms: Mapping[str, Mapping[str, np.ndarray]], name: str) -> dict[str, Any]:
        return {
            reference: _plain(difference_intervals(arms[reference], arms[name]))
            for reference in study.references
            if reference in names and reference != name
        }

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
                "differences": compared(by_arm, name),
                **(
                    {
                        "metrics_over_seeds": _plain(score_intervals(over_seeds[name])),
                        "differences_over_seeds": compared(over_seeds, name),
                    }
                    if study.nested
                    else {}
                ),
                "accuracy_by_seed": {str(seed): _accuracy(table) for seed, table in predictions[name].items()},
            }
            for name in names
        },
        **({"choice": {str(fold): name for fold, name in choice.items()}} if choice else {}),
        "notes": _notes(study, cells, counted, results, steps) + _nested_notes(study, choice, counted),
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
    nested = result["settings"].get("nested", False)
    further = ["accuracy, seeds drawn too", *(f"{title}, seeds drawn too" for title in above)] if nested else []
    rows = [["arm", "steps", *_METRICS.values(), *above, *further, "accuracy by seed"]]
    for name, arm in result["arms"].items():
        low, high = arm["steps"]["low"], arm["steps"]["high"]
        differences = [arm["differences"].get(reference) for reference in references]
        further_cells = []
        if nested:
            drawn = [arm["differences_over_seeds"].get(reference) for reference in references]
            further_cells = [interval_text(arm["metrics_over_seeds"]["accuracy"]), *map(_difference_text, drawn)]
        rows.append(
            [
                name,
                str(low) if low == high else f"{low} to {high}",
                *(interval_text(arm["metrics"][metric]) for metric in _METRICS),
                *map(_difference_text, differences),
                *further_cells,
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


def _tables(cells: Sequence[Cell], split: str) -> _Tables:
    """The predictions by arm, seed and fold."""
    tables: _Tables = defaultdict(lambda: defaultdict(dict))
    for cell in cells:
        tables[cell.arm][cell.seed][cell.fold] = read_predictions(cell.predictions(split))
    return tables


def _choice(tables: _Tables, students: Sequence[str]) -> dict[int | None, str]:
    """The best student of each fold by its accuracy on these tables, mean over the seeds; the first of equals."""
    folds = next(iter(tables[students[0]].values()))
    return {
        fold: max(students, key=lambda name: np.mean([_accuracy(of_fold[fold]) for of_fold in tables[name].values()]))
        for fold in folds
    }


def _pooled_tables(tables: _Tables, names: Sequence[str]) -> dict[str, dict[int, Predictions]]:
    """The predictions by arm and seed, of all folds together, and all of the same frames in the same order."""
    pooled = {name: {seed: _pooled(list(folds.values())) for seed, folds in tables[name].items()} for name in names}
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
    """By arm and metric ``[1 + repeats, seeds]``: of all frames and of each resample, the same resamples for all."""
    frames = next(iter(next(iter(predictions.values())).values()))
    position = {file: index for index, file in enumerate(frames.files)}

    def all_scores(drawn: Predictions) -> dict[tuple[str, int, str], float]:
        indices = np.array([position[file] for file in drawn.files])
        return {
            (name, seed, metric): value
            for name, seeds in predictions.items()
            for seed, table in seeds.items()
            for metric, value in _scores(table.take(indices)).items()
            if metric in _METRICS
        }

    resampled = resampled_scores(frames, all_scores, repeats)
    return {
        name: {metric: np.stack([resampled[name, seed, metric] for seed in seeds], axis=1) for metric in _METRICS}
        for name, seeds in predictions.items()
    }


def _mean(scores: Mapping[str, Mapping[str, np.ndarray]], draws: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """By arm and metric ``[1 + repeats]``: the mean over the seeds, each as often as it was drawn."""
    return {
        name: {metric: np.average(values, axis=1, weights=draws) for metric, values in metrics.items()}
        for name, metrics in scores.items()
    }


def _seed_draws(seeds: int, repeats: int) -> np.ndarray:
    """How often each seed is drawn, ``[1 + repeats, seeds]``: once for the frames as they are."""
    drawn = np.random.default_rng(0).multinomial(seeds, [1 / seeds] * seeds, size=repeats)
    return np.concatenate([np.ones((1, seeds)), drawn])


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


def _nested_notes(study: Study, choice: Mapping[int | None, str], counted: Sequence[Cell]) -> list[str]:
    if not study.nested:
        return []
    seeds = len({cell.seed for cell in counted})
    notes = ["Where seeds are drawn too, a resample draws patients and seeds, the same for all arms."]
    if seeds < _FEWEST_SEEDS:
        notes.append(f"{seeds} seed(s) tell little of the next one: run {_FEWEST_SEEDS} or more.")
    if choice:
        chosen = ", ".join(name if fold is None else f"fold {fold}: {name}" for fold, name in choice.items())
        notes.append(f"Chosen by accuracy on validation frames, mean over the seeds: {chosen}.")
    return notes


def _accuracy(predictions: Predictions) -> float:
    return float((predictions.classes == predictions.labels).mean())


def _difference_text(difference: Mapping[str, Any] | None) -> str:
    return "" if difference is None else interval_text(difference["accuracy"], "+")


def _plain(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: None if math.isnan(value) else value for key, value in asdict(interval).items()}
        for name, interval in intervals.items()
    }
