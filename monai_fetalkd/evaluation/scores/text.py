"""The content of metrics.json as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monai_fetalkd.utils.markdown import markdown_table

__all__ = ["interval_text", "notes", "table"]

_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_auroc": "macro AUROC",
    "negative_log_likelihood": "negative log-likelihood",
    "expected_calibration_error": "expected calibration error",
}
_COSTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "parameters (millions)": lambda cost: f"{cost['parameters'] / 1e6:.3f}",
    "multiply-accumulates (billions)": lambda cost: f"{cost['macs'] / 1e9:.3f}",
    "milliseconds a frame, median (p95)": lambda cost: "{median:.2f} ({p95:.2f})".format(**cost["milliseconds"]),
}
_ANSWERED = {"coverage": "coverage, frames answered", "accuracy": "accuracy of the answers"}
_SCALED = ("negative_log_likelihood", "expected_calibration_error")


def table(content: Mapping[str, Any]) -> str:
    """Networks side by side as aligned Markdown, then their comparisons, then what is to be known of the figures.

    Args:
        content: what :func:`~monai_fetalkd.evaluation.scores.evaluate` returns.

    Returns:
        The text: for each network a column of values with their 95 % intervals, ``-`` where not defined.
    """
    networks = content["networks"]
    temperatures = [network["temperature"] for network in networks.values()]
    thresholds = [network["threshold"] for network in networks.values()]
    costs = [network["cost"] for network in networks.values()]
    rows = [["", *networks]]
    for metric, title in _METRICS.items():
        rows.append([title, *(interval_text(network["metrics"][metric]) for network in networks.values())])
    if any(temperatures):
        rows.append(["temperature", *(_number(found["value"]) if found else "-" for found in temperatures)])
        for metric in _SCALED:
            cells = (interval_text(found["after"][metric]) if found else "-" for found in temperatures)
            rows.append([f"{_METRICS[metric]}, scaled", *cells])
    if any(thresholds):
        rows.append(["threshold of an answer", *(_number(found["value"]) if found else "-" for found in thresholds)])
        for key, title in _ANSWERED.items():
            rows.append([title, *(interval_text(found[key]) if found else "-" for found in thresholds)])
    if any(costs):
        for title, shown in _COSTS.items():
            rows.append([title, *(shown(cost) if cost else "-" for cost in costs)])
    first = next(iter(networks.values()))
    size = f"{first['frames']} frames of {first['groups']} groups."
    return "\n".join([markdown_table(rows), *_comparisons(content), "", size, *notes(networks)])


def notes(networks: Mapping[str, Any]) -> list[str]:
    """What is to be known of the figures.

    Args:
        networks: the networks of ``metrics.json``.

    Returns:
        Each note once, with the networks that it is of unless it is of all.

    Example:
        >>> notes({"teacher": {"notes": ["few patients"]}, "student": {"notes": ["few patients", "no interval"]}})
        ['few patients', "'student': no interval"]
    """
    owners: dict[str, list[str]] = {}
    for name, network in networks.items():
        for note in network["notes"]:
            owners.setdefault(note, []).append(name)
    return [
        note if len(names) == len(networks) else f"{', '.join(map(repr, names))}: {note}"
        for note, names in owners.items()
    ]


def interval_text(interval: Mapping[str, Any], sign: str = "") -> str:
    """A score with its interval.

    Args:
        interval: ``value``, ``low`` and ``high``, None where not defined.
        sign: ``"+"`` for a difference, so that its sign is shown.

    Returns:
        The text, to three places.

    Example:
        >>> interval_text({"value": 0.9, "low": 0.85, "high": 0.94})
        '0.900 (0.850 to 0.940)'
    """
    value = _number(interval["value"], sign)
    if interval["low"] is None:
        return value
    exact = ", exact" if "method" in interval else ""  # Clopper and Pearson's, where all resamples are alike
    return f"{value} ({_number(interval['low'], sign)} to {_number(interval['high'], sign)}{exact})"


def _comparisons(content: Mapping[str, Any]) -> list[str]:
    lines = []
    for pair in content["comparisons"]:
        difference, p_value = pair["differences"]["accuracy"], pair["mcnemar"]["p_value"]
        chance = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
        lines.append(f"{pair['second']} - {pair['first']}: accuracy {interval_text(difference, '+')}, McNemar {chance}")
    return ["", *lines] if lines else []


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"
