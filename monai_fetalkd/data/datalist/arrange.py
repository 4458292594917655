"""The frames of a source into the sections of a datalist."""

from __future__ import annotations

from typing import Any

from monai_fetalkd.data.datalist.rows import SECTIONS, Row
from monai_fetalkd.data.datalist.splits import group_folds, held_out

__all__ = ["arrange"]


def arrange(
    rows: list[Row],
    complete: bool,
    *,
    val: float,
    test: float,
    folds: int | None,
    seed: int,
    new_split: bool,
) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Put frames into sections: those of the source as far as it has any, held out by group where it has none.

    Args:
        rows: the frames, with ``section`` where the source has a split.
        complete: whether a source without validation is meant to have none.
        val: fraction of the frames outside testing to hold out for validation.
        test: fraction of the frames to hold out for testing.
        folds: number of folds instead of validation.
        seed: seed of splits and folds.
        new_split: forget the split of the source.

    Returns:
        The frames by section, each in the order of the source, and what of the arguments took effect.

    Raises:
        ValueError: when the frames or groups are too few.
    """
    if new_split:
        rows = [_without(row, "section", "fold") for row in rows]
    if any("section" in row for row in rows):
        applied: dict[str, Any] = {"split": "as in the source"}
        sections = {name: [row for row in rows if row["section"] == name] for name in SECTIONS}
    else:
        applied = {"split": "new", "test": test, "seed": seed}
        sections = _cut(rows, "training", "testing", test, seed)
        complete = False
    if folds is not None:
        outside = sections.get("training", []) + sections.pop("validation", [])
        numbers = group_folds([row["label"] for row in outside], [row["group"] for row in outside], folds, seed)
        sections["training"] = [row | {"fold": int(fold)} for row, fold in zip(outside, numbers, strict=True)]
        applied |= {"folds": folds, "seed": seed}
    elif not complete and not sections.get("validation"):
        sections |= _cut(sections["training"], "training", "validation", val, seed)
        applied |= {"val": val, "seed": seed}
    return {
        name: [_without(row, "section") for row in sections[name]] for name in SECTIONS if sections.get(name)
    }, applied


def _without(row: Row, *keys: str) -> Row:
    return {key: value for key, value in row.items() if key not in keys}


def _cut(rows: list[Row], kept: str, cut: str, fraction: float, seed: int) -> dict[str, list[Row]]:
    if not rows or not fraction:
        return {kept: rows}
    mask = held_out([row["label"] for row in rows], [row["group"] for row in rows], fraction, seed)
    return {
        kept: [row for row, out in zip(rows, mask, strict=True) if not out],
        cut: [row for row, out in zip(rows, mask, strict=True) if out],
    }
