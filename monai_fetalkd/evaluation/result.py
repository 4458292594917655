"""Several networks evaluated side by side: the content of metrics.json."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from monai_fetalkd.evaluation.calibration import calibration_scores, fit_temperature, reliability_bins, with_temperature
from monai_fetalkd.evaluation.intervals import (
    Interval,
    McNemar,
    aligned,
    difference_intervals,
    intervals,
    mcnemar,
    resampled_scores,
    score_intervals,
)
from monai_fetalkd.evaluation.output import prediction_paths
from monai_fetalkd.evaluation.predictions import Predictions
from monai_fetalkd.evaluation.scores import class_scores, confusion_counts, notes, scores

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)


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
        validation: predictions on other frames, by the same names, from which temperatures are fitted.
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
        {'value': 1.0, 'low': 1.0, 'high': 1.0}
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
    resampled = {}
    for name, network in networks.items():
        logger.info("%s: %d frames, a bootstrap of %d repeats", name, len(network), repeats)
        resampled[name] = resampled_scores(network, _all_scores, repeats, seed)
    return _plain(
        {
            "version": 1,
            "split": split,
            "class_names": first.class_names,
            "settings": settings or {},
            "bootstrap": {"repeats": repeats, "seed": seed, "unit": "group"},
            "networks": {
                name: {
                    **_network(network, resampled[name], validation.get(name), repeats, seed),
                    "cost": costs.get(name),
                    "predictions": path,
                }
                for (name, network), path in zip(networks.items(), prediction_paths(networks), strict=True)
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


def _all_scores(predictions: Predictions) -> dict[tuple[str | None, str], float]:
    """Headline scores under None, those of each class under its name: one pass of resamples serves all."""
    by_class = class_scores(predictions)
    return {
        **{(None, name): value for name, value in scores(predictions).items()},
        **{(part, name): value for part, values in by_class.items() for name, value in values.items()},
    }


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
    temperature = None if validation is None else _temperature(predictions, validation, headline, repeats, seed)
    return {
        **_counts(predictions),
        "metrics": metrics,
        "classes": _classes(predictions, score_intervals(resampled)),
        "sources": _parts(predictions, predictions.sources, headline, repeats, seed),
        "machines": _parts(predictions, predictions.machines, headline, repeats, seed),
        "confusion": confusion_counts(predictions),
        "reliability": reliability_bins(predictions),
        "temperature": temperature,
        "notes": _notes(predictions, [metrics, *([temperature["after"]] if temperature else [])]),
    }


def _counts(predictions: Predictions) -> dict[str, int]:
    return {"frames": len(predictions), "groups": len(set(predictions.groups))}


def _classes(predictions: Predictions, found: Mapping[tuple[str | None, str], Interval]) -> dict[str, dict[str, Any]]:
    """Scores of each class; the number of its frames has no interval."""
    return {
        part: {
            name: int(interval.value) if name == "frames" else interval
            for (owner, name), interval in found.items()
            if owner == part
        }
        for part in predictions.class_names
    }


def _parts(
    predictions: Predictions, parts: Sequence[str], resampled: Mapping[str, np.ndarray], repeats: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Scores by source or by machine, each resampled by itself; frames of an unknown one are left out."""
    if len({*parts}) == 1 and parts[0]:  # the whole, whose resamples are there already
        return {parts[0]: {**_counts(predictions), "metrics": score_intervals(resampled)}}
    members = {
        part: predictions.take([part == other for other in parts]) for part in sorted({part for part in parts if part})
    }
    return {
        part: {**_counts(frames), "metrics": intervals(frames, scores, repeats, seed)}
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


def _temperature(
    predictions: Predictions,
    validation: Predictions,
    resampled: Mapping[str, np.ndarray],
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """Calibration before and after temperature scaling, the temperature taken as given."""
    value = fit_temperature(validation)
    after = intervals(with_temperature(predictions, value), calibration_scores, repeats, seed)
    return {
        "value": value,
        "frames": len(validation),
        "before": score_intervals({key: resampled[key] for key in after}),
        "after": after,
    }


def _notes(predictions: Predictions, found: Sequence[Mapping[str, Interval]]) -> list[str]:
    sentences = notes(predictions)
    if len(set(predictions.groups)) == 1:
        sentences.append("All frames are of one group (patient): there is nothing to make intervals from.")
    errors = [calibration["expected_calibration_error"] for calibration in found]
    if any(error.value < error.low for error in errors):
        sentences.append(
            "The interval of an expected calibration error lies above the value: resampling adds to the error of each "
            "bin, so that the interval tells no more than an upper limit."
        )
    return sentences


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
