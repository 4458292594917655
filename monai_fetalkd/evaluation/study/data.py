"""The frames of a study: one datalist for each fold, the same in every cell and after every interruption."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_fetalkd.ultrasound.data.datalist import Datalist, group_folds, read_source
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED

__all__ = ["write_datalists"]

_SPLIT_SEED = 0  # one split for all seeds, so that these are paired


def write_datalists(datalist: Datalist, folds: int | None, folder: Path) -> None:
    """Write the datalists of a study, or check that those there are the same.

    With folds, all frames are dealt into patient-grouped stratified folds, whatever their section: fold ``k`` is for
    testing, fold ``k + 1`` for validation, the others for training. The folds depend on the frames and their order, not
    on what the patients are called, as their pseudonyms may be new each time the source is read. Unlabelled frames are
    for training in every fold, but those of patients whom a fold holds out.

    Args:
        datalist: the frames.
        folds: number of folds; None keeps the sections as they are.
        folder: where ``fold_0.json`` and so on, or ``split.json``, are written.

    Raises:
        ValueError: when the frames are too few, or the folder holds the datalists of others.
    """
    for name, wanted in _datalists(datalist, folds):
        path = folder / f"{name}.json"
        if not path.is_file():
            wanted.save(path)
        elif _content(read_source(path, datalist.class_names)) != _content(wanted):
            raise ValueError(
                f"The frames of '{datalist.path}', or their folds, are not those that '{path}' was written from: "
                "give the same data, or another output_dir."
            )


def _datalists(datalist: Datalist, folds: int | None) -> Iterator[tuple[str, Datalist]]:
    if folds is None:
        yield "split", datalist
        return
    rows = [row for section in datalist.sections.values() for row in section]
    groups = [f"{number:09d}" for number in _numbers(row["group"] for row in rows)]
    folds_of_rows = group_folds([row["label"] for row in rows], groups, folds, _SPLIT_SEED)
    for fold in range(folds):
        roles = {fold: "testing", (fold + 1) % folds: "validation"}
        sections: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "testing": []}
        for row, number in zip(rows, folds_of_rows.tolist(), strict=True):
            sections[roles.get(number, "training")].append(row | {"fold": number})
        provenance = datalist.provenance | {"study": {"folds": folds, "fold": fold, "seed": _SPLIT_SEED}}
        held_out = {row["group"] for name in ("validation", "testing") for row in sections[name]}
        unlabelled = [row for row in datalist.unlabelled if row["group"] not in held_out]
        yield f"fold_{fold}", replace(datalist, sections=sections, provenance=provenance, unlabelled=unlabelled)


def _content(datalist: Datalist) -> list[Any]:
    """The frames, with numbers in the place of pseudonyms."""
    sections = {**datalist.sections, UNLABELLED: datalist.unlabelled}
    rows = [row | {"section": section} for section, members in sections.items() for row in members]
    numbers = _numbers(row["group"] for row in rows)
    return [
        {key: value for key, value in row.items() if key != "operator"}
        | {"image": os.path.abspath(row["image"]), "group": number}
        for row, number in zip(rows, numbers, strict=True)
    ]


def _numbers(groups: Iterable[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(group, len(numbers)) for group in groups]
