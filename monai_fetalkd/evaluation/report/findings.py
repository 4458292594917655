"""What an evaluation says, in words: whether a network is better than another, and on how many patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from monai_fetalkd.evaluation.scores import Predictions

__all__ = ["PHANTOM_SOURCE", "Finding", "count_frames", "findings", "generated"]

Verdict = Literal["better", "worse", "neither", "unknown"]

#: Source of the frames that :func:`~monai_fetalkd.ultrasound.data.make_phantom` draws.
PHANTOM_SOURCE = "phantom"


@dataclass(frozen=True)
class Finding:
    """How the last network of an evaluation compares with another one.

    Attributes:
        other: name of the other network.
        verdict: whether the last network is better or worse in accuracy, neither (the interval of the paired difference
            holds zero), or unknown (it has none).
        difference: in accuracy, last minus other: ``value``, ``low`` and ``high``.
    """

    other: str
    verdict: Verdict
    difference: Mapping[str, float | None]


def findings(content: Mapping[str, Any]) -> list[Finding]:
    """Compare the last network, the one that the others are there for, with each of the others.

    Args:
        content: the content of ``metrics.json``.

    Returns:
        A finding for each other network, in the order of the table.

    Example:
        >>> pair = {"first": "teacher", "second": "student"}
        >>> pair["differences"] = {"accuracy": {"value": -0.09, "low": -0.14, "high": -0.04}}
        >>> findings({"networks": {"teacher": {}, "student": {}}, "comparisons": [pair]})[0].verdict
        'worse'
    """
    last = list(content["networks"])[-1]
    return [
        Finding(pair["first"], _verdict(pair["differences"]["accuracy"]), pair["differences"]["accuracy"])
        for pair in content["comparisons"]
        if pair["second"] == last
    ]


def count_frames(
    splits: Mapping[str, Sequence[Mapping[str, Any]]], class_names: Sequence[str]
) -> dict[str, list[tuple[str, list[tuple[int, int]]]]]:
    """Frames and groups (patients) by split, class and source.

    Args:
        splits: rows of a datalist by split, each with ``label``, ``group`` and, where known, ``source``.
        class_names: names of the classes.

    Returns:
        Under ``"class"``, ``"source"`` and ``"all"`` rows of a name and, for each split, frames and groups.

    Example:
        >>> rows = [{"label": 0, "group": "p1", "source": "a"}, {"label": 0, "group": "p1", "source": "b"}]
        >>> count_frames({"testing": rows}, ["brain", "other"])["class"]
        [('brain', [(2, 1)]), ('other', [(0, 0)])]
    """
    sources = sorted({str(row.get("source") or "unknown") for rows in splits.values() for row in rows})

    def counted(test: Any) -> list[tuple[int, int]]:
        members = [[row["group"] for row in rows if test(row)] for rows in splits.values()]
        return [(len(groups), len(set(groups))) for groups in members]

    return {
        "class": [
            (name, counted(lambda row, label=label: row["label"] == label)) for label, name in enumerate(class_names)
        ],
        "source": [
            (name, counted(lambda row, name=name: (row.get("source") or "unknown") == name)) for name in sources
        ],
        "all": [("all", counted(lambda row: True))],
    }


def generated(predictions: Predictions) -> bool:
    """Whether frames of the phantom are among these, which are drawings and not of patients."""
    return PHANTOM_SOURCE in predictions.sources


def _verdict(difference: Mapping[str, float | None]) -> Verdict:
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return "unknown"
    return "better" if low > 0 else "worse" if high < 0 else "neither"
