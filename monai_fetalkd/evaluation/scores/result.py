"""Several networks evaluated side by side: the content of metrics.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from tqdm import tqdm

from .calibration import calibration_scorer, fit_temperature, reliability_bins, with_temperature
from .classification import confusion_counts, notes
from .intervals import (
    Interval,
    McNemar,
    aligned,
    difference_intervals,
    exact_interval,
    mcnemar,
    resampled_at_once,
    score_intervals,
)
from .output import prediction_paths
from .predictions import Predictions
from .resamples import Scorer
from .scorer import part_scorer, scorer
from .threshold import answer_threshold, answered_scorer

__all__ = ["FEW_GROUPS", "evaluate"]

#: Fewer groups (patients) than this are marked: percentile intervals of so few are too narrow.
FEW_GROUPS = 20

# scores that are shares of frames, of which there is an exact interval
_SHARES = ("accuracy", "top_2_accuracy", "precision", "recall", "coverage")

#: Share of right answers that a threshold is chosen for on the validation frames, as an export does by default.
TARGET = 0.95


def evaluate(
    networks: Mapping[str, Predictions],
    validation: Mapping[str, Predictions] | None = None,
    costs: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    split: str = "testing",
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate networks side by side on the same frames.

    Args:
        networks: the predictions of each network by its name; the frames are the same, in any order.
        validation: predictions on other frames, by the same names, on which temperatures are fitted and thresholds
            chosen.
        costs: what each network costs, by the same names.
        settings: how the predictions came about, to be kept with the result.
        split: what the frames are called.
        repeats: resamples of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The content of ``metrics.json``, as ``metrics.schema.json`` beside this module describes it: plain Python
        values, None where a number is not defined.

    Raises:
        ValueError: if there is no network, a name of ``validation`` or ``costs`` is not among the networks, frames or
            class tables differ, or a frame to validate on is one of those evaluated.

    Example:
        >>> rows = [{"image": f"{n}.png", "label": n % 2, "group": f"p{n // 4}"} for n in range(40)]
        >>> sure = Predictions.from_rows(["brain", "femur"], rows, np.eye(2)[[n % 2 for n in range(40)]])
        >>> content = evaluate({"student": sure}, repeats=20)
        >>> content["networks"]["student"]["metrics"]["accuracy"]
        {'value': 1.0, 'low': 0.69..., 'high': 1.0, 'method': 'Clopper-Pearson'}
    """
    if not networks:
        raise ValueError("There is nothing to evaluate: give the predictions of a network at least.")
    validation, costs = dict(validation or {}), dict(costs or {})
    for what, given in (("Validation predictions", validation), ("Costs", costs)):
        for name in given:
            if name not in networks:
                raise ValueError(f"{what} are given for '{name}', but the networks evaluated are {list(networks)}.")
    first_name, first = next(iter(networks.items()))
    networks = {name: aligned(first, other, f"'{first_name}'", f"'{name}'") for name, other in networks.items()}
    for name in validation:
        _check_validation(name, networks[name], validation[name])
    resampled, found = {}, {}
    for name, network in tqdm(networks.items(), desc="bootstrap", unit="network", disable=None):
        resampled[name] = resampled_at_once(network, scorer, repeats, seed)
        found[name] = _network(network, resampled[name], validation.get(name), repeats, seed)
    return _plain(
        {
            "version": 1,
            "split": split,
            "class_names": first.class_names,
            "settings": settings or {},
            "bootstrap": {"repeats": repeats, "seed": seed, "unit": "group"},
            "networks": {
                name: {**found[name], "cost": costs.get(name), "predictions": path}
                for name, path in zip(networks, prediction_paths(networks), strict=True)
            },
            "comparisons": [
                {
                    "first": one,
                    "second": other,
                    "differences": difference_intervals(_headline(resampled[one]), _headline(resampled[other])),
                    "mcnemar": mcnemar(networks[one], networks[other]),
                }
                for one, other in combinations(networks, 2)
            ],
        }
    )


def _headline(resampled: Mapping[tuple[str | None, str], np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values for (part, name), values in resampled.items() if part is None}


def _network(
    predictions: Predictions,
    resampled: Mapping[tuple[str | None, str], np.ndarray],
    validation: Predictions | None,
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    headline = _headline(resampled)
    metrics = score_intervals(headline)
    scaled = None if validation is None else _scaled(predictions, validation, headline, repeats, seed)
    classes = _classes(predictions, score_intervals(resampled))
    parts = {
        "sources": _parts(predictions, predictions.sources, repeats, seed),
        "machines": _parts(predictions, predictions.machines, repeats, seed),
    }
    sentences = [
        *notes(predictions),
        *_notes_on_intervals(predictions, metrics),
        *_notes_on_few({"class": classes, "source": parts["sources"], "machine": parts["machines"]}),
        *_notes_on_calibration([metrics, *([scaled["temperature"]["after"]] if scaled else [])]),
    ]
    return {
        **_counts(predictions),
        "metrics": _with_exact(metrics, len(set(predictions.groups))),
        "classes": classes,
        **parts,
        "confusion": confusion_counts(predictions),
        "reliability": reliability_bins(predictions),
        **(scaled or {"temperature": None, "threshold": None}),
        "notes": sentences,
    }


def _counts(predictions: Predictions) -> dict[str, int]:
    return {"frames": len(predictions), "groups": len(set(predictions.groups))}


def _classes(predictions: Predictions, found: Mapping[tuple[str | None, str], Interval]) -> dict[str, dict[str, Any]]:
    """Scores of each class; the numbers of its frames and groups have no interval."""
    groups = np.array(predictions.groups)
    classes = {}
    for index, part in enumerate(predictions.class_names):
        of_class = {name: interval for (owner, name), interval in found.items() if owner == part}
        frames = int(of_class.pop("frames").value)
        members = len(set(groups[predictions.labels == index]))
        taken = len(set(groups[predictions.classes == index]))
        classes[part] = {
            "frames": frames,
            "groups": members,
            **of_class,
            "precision": _with_exact(of_class, taken)["precision"],
            "recall": _with_exact(of_class, members)["recall"],
        }
    return classes


def _with_exact(found: Mapping[str, Interval], groups: int) -> dict[str, Any]:
    """Clopper and Pearson's interval for shares of frames that are 0 or 1 in all resamples."""
    if groups < 2:
        return dict(found)
    return {
        name: {**asdict(exact_interval(interval.value, groups)), "method": "Clopper-Pearson"}
        if name in _SHARES and math.isnan(interval.low) and interval.value in (0, 1)
        else interval
        for name, interval in found.items()
    }


def _parts(predictions: Predictions, parts: Sequence[str], repeats: int, seed: int) -> dict[str, dict[str, Any]]:
    """Scores by source or by machine, each resampled by itself; frames of an unknown one are left out."""
    names = np.array(parts)
    members = {part: predictions.take(names == part) for part in sorted({part for part in parts if part})}
    return {
        part: {
            **_counts(frames),
            "metrics": _with_exact(
                score_intervals(resampled_at_once(frames, part_scorer, repeats, seed)), len(set(frames.groups))
            ),
        }
        for part, frames in members.items()
    }


def _check_validation(name: str, predictions: Predictions, validation: Predictions) -> None:
    if validation.class_names != predictions.class_names:
        raise ValueError(
            f"The class tables of '{name}' {list(predictions.class_names)} and of its validation predictions "
            f"{list(validation.class_names)} differ."
        )
    evaluated = set(predictions.files)
    for file in validation.files:
        if file in evaluated:
            raise ValueError(
                f"The frame '{file}' is in the validation predictions of '{name}' and in those evaluated: fit a "
                "temperature on other frames than it is judged by."
            )


def _scaled(
    predictions: Predictions,
    validation: Predictions,
    resampled: Mapping[str, np.ndarray],
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """What the validation frames give: a temperature, and the threshold of the scaled probabilities."""
    value = fit_temperature(validation)
    scaled = with_temperature(predictions, value)
    after = score_intervals(resampled_at_once(scaled, calibration_scorer, repeats, seed))
    threshold = answer_threshold(with_temperature(validation, value), TARGET)
    return {
        "temperature": {
            "value": value,
            "frames": len(validation),
            "before": score_intervals({key: resampled[key] for key in after}),
            "after": after,
        },
        "threshold": None if threshold is None else _answered(scaled, threshold, repeats, seed),
    }


def _answered(predictions: Predictions, threshold: float, repeats: int, seed: int) -> dict[str, Any]:
    """How many frames are answered at a threshold, and how many of the answers are right."""

    def scorer_of(table: Predictions, codes: np.ndarray) -> Scorer[str]:
        return answered_scorer(table, codes, threshold)

    found = score_intervals(resampled_at_once(predictions, scorer_of, repeats, seed))
    answered = predictions.probabilities.max(axis=1) >= threshold
    groups = len(set(np.array(predictions.groups)[answered]))
    return {"value": threshold, "target": TARGET, **_with_exact(found, groups)}


def _notes_on_intervals(predictions: Predictions, metrics: Mapping[str, Interval]) -> list[str]:
    groups = len(set(predictions.groups))
    if groups == 1:
        return ["All frames are of one group (patient): there is nothing to make intervals from."]
    alike = [name for name, found in metrics.items() if math.isnan(found.low) and not math.isnan(found.value)]
    sentences = []
    if groups < FEW_GROUPS:
        sentences.append(f"There are only {groups} groups (patients): intervals of so few are too narrow.")
    if exact := [name for name in alike if name in _SHARES and metrics[name].value in (0, 1)]:
        sentences.append(
            f"All resamples give the same {_listed(exact)}: its interval is Clopper and Pearson's exact one, of "
            f"{groups} groups (patients) all of whose frames are right, or wrong."
        )
    if left := [name for name in alike if name not in exact]:
        sentences.append(
            f"The interval of {_listed(left)} cannot be estimated: all resamples give one value, or most give none."
        )
    return sentences


def _notes_on_few(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    few = [
        f"{kind} '{name}' ({found['groups']})"
        for kind, members in parts.items()
        for name, found in members.items()
        if 0 < found["groups"] < FEW_GROUPS
    ]
    return [f"Fewer than {FEW_GROUPS} groups (patients): {', '.join(few)}."] if few else []


def _notes_on_calibration(found: Sequence[Mapping[str, Interval]]) -> list[str]:
    errors = [calibration["expected_calibration_error"] for calibration in found]
    if any(error.value < error.low for error in errors):
        return [
            "The interval of an expected calibration error lies above the value: resampling adds to the error of each "
            "bin, so that the interval tells no more than an upper limit."
        ]
    return []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _plain(value: Any) -> Any:
    """The same in what JSON knows: NaN becomes None, arrays lists."""
    if isinstance(value, Interval | McNemar):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
