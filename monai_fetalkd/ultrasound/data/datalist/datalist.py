"""A datalist: the frames of a task by section, their classes and where they came from."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED, Row
from monai_fetalkd.utils.files import written_whole

__all__ = ["Datalist", "frame_key", "listed_once"]


@dataclass(frozen=True)
class Datalist:
    """The frames of a task by section.

    Args:
        path: where it was read from, for messages.
        class_names: the class names in the order of their labels.
        sections: the frames of ``training``, ``validation``, ``testing`` as far as there are any. A frame is a
            dictionary with ``image`` (path), ``label`` (int), ``group`` (patient), ``source`` and, where known,
            ``frame`` (index in a file of several), ``machine``, ``operator``, ``fold``. For segmentation ``label`` is
            the path of a mask.
        about: ``name``, ``description``, ``licence``, ``reference`` of the data where known.
        provenance: where the frames came from and how they were split; ``save`` adds the counts.
        unlabelled: frames without a label, for training.

    Example:
        >>> frame = {"image": "/data/a.png", "label": 1, "group": "p1", "source": "clinic"}
        >>> datalist = Datalist("/data", ["abdomen", "brain"], {"training": [frame]})
        >>> datalist.section("training")[0]["label"]
        1
        >>> datalist.counts()
        {'training': {'abdomen': 0, 'brain': 1}}
    """

    path: str
    class_names: Sequence[str]
    sections: dict[str, list[Row]]
    about: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    unlabelled: list[Row] = field(default_factory=list)

    def section(self, name: str) -> list[Row]:
        """The frames of a section.

        Args:
            name: ``"training"``, ``"validation"``, ``"testing"`` or ``"unlabelled"``.

        Returns:
            Its frames, at least one.

        Raises:
            ValueError: when the section has no frames.
        """
        if rows := self.unlabelled if name == UNLABELLED else self.sections.get(name):
            return rows
        found = ", ".join(f"{len(rows)} in {name}" for name, rows in self.sections.items()) or "none at all"
        folds = {row["fold"] for rows in self.sections.values() for row in rows if "fold" in row}
        advice = f"; it has {len(folds)} folds: choose one of them for validation by 'fold'" if folds else ""
        raise ValueError(f"The datalist '{self.path}' has no frames in '{name}' ({found}){advice}.")

    def with_fold(self, fold: int) -> Datalist:
        """The same datalist with one of its folds as validation, the other folds as training.

        Unlabelled frames of the patients of that fold are left out.

        Args:
            fold: the fold, from 0.

        Returns:
            A new datalist.

        Raises:
            ValueError: when there is no such fold.
        """
        rows = self.sections.get("training", [])
        folds = sorted({row["fold"] for row in rows if "fold" in row})
        if fold not in folds:
            found = f"its folds are {', '.join(map(str, folds))}" if folds else "it was made without folds"
            raise ValueError(f"The datalist '{self.path}' has no fold {fold}: {found}.")
        sections = {
            "training": [row for row in rows if row.get("fold") != fold],
            "validation": [row for row in rows if row.get("fold") == fold],
            "testing": self.sections.get("testing", []),
        }
        held_out = {row["group"] for row in sections["validation"]}
        unlabelled = [row for row in self.unlabelled if row["group"] not in held_out]
        return replace(self, sections=sections, unlabelled=unlabelled)

    @property
    def has_masks(self) -> bool:
        """Whether the labels are masks, for segmentation."""
        return any(isinstance(row["label"], str) for rows in self.sections.values() for row in rows)

    def class_of(self, row: Row) -> str:
        """What a frame is counted under: the name of its class, or that it has a mask, or no label."""
        if "label" not in row:
            return UNLABELLED
        return "image with mask" if isinstance(row["label"], str) else self.class_names[row["label"]]

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of frames by section and class name."""
        names = ["image with mask"] if self.has_masks else self.class_names
        counts = {section: Counter(map(self.class_of, rows)) for section, rows in self.sections.items()}
        return {section: {name: count[name] for name in names} for section, count in counts.items()}

    def shared_groups(self) -> dict[str, dict[str, Row]]:
        """The groups with frames in more than one split: for each the first of its frames by section.

        Unlabelled frames are for training: they may be of the same group as labelled ones there, but not of one that is
        held out for validation or testing.
        """
        groups: dict[str, dict[str, Row]] = defaultdict(dict)
        for section, rows in (*self.sections.items(), (UNLABELLED, self.unlabelled)):
            for row in rows:
                groups[row["group"]].setdefault(section, row)
        return {
            group: first
            for group, first in groups.items()
            if len(first) > 1 and (UNLABELLED not in first or first.keys() & {"validation", "testing"})
        }

    def contradictions(self) -> list[list[tuple[str, Row]]]:
        """The frames that are listed with two labels or groups: for each its rows, with their sections."""
        listed: dict[tuple[str, int | None], list[tuple[str, Row]]] = defaultdict(list)
        for section, rows in self.sections.items():
            for row in rows:
                listed[frame_key(row)].append((section, row))
        return [rows for rows in listed.values() if len({(row["label"], row["group"]) for _, row in rows}) > 1]

    def validate(self) -> None:
        """Refuse what would make every metric worthless: a group in two splits, a frame with two labels.

        Raises:
            ValueError: naming such a group or frame.
        """
        if contradictions := self.contradictions():
            rows = contradictions[0]
            groups = {row["group"] for _, row in rows}
            said = " and ".join(dict.fromkeys(f"'{self.class_of(row)}' ({section})" for section, row in rows))
            raise ValueError(
                f"{len(contradictions)} frame(s) of '{self.path}' are listed twice with different labels or groups: "
                f"'{rows[0][1]['image']}' is {said}, of {len(groups)} group(s). Keep one row of each."
            )
        if shared := self.shared_groups():
            group, first = next(iter(shared.items()))
            where = " and ".join(f"'{section}' ('{row['image']}')" for section, row in first.items())
            raise ValueError(
                f"{len(shared)} group(s) of '{self.path}' have frames in more than one section, so that every metric "
                f"would be too good: '{group}' is in {where}. Split it anew by group (new_split)."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write MONAI's JSON form, whole or not at all, with image paths relative to its folder.

        Args:
            path: the JSON file.
        """
        folder = Path(path).absolute().parent
        content: dict[str, Any] = {
            **self.about,
            "labels": {str(label): name for label, name in enumerate(self.class_names)},
            "provenance": {**self.provenance, "counts": self.counts()},
        }
        for section, rows in (*self.sections.items(), *([(UNLABELLED, self.unlabelled)] if self.unlabelled else [])):
            content[section] = [_relative(row, folder) for row in rows]
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def frame_key(row: Row) -> tuple[str, int | None]:
    """What tells a frame from all others: its file, by whatever path, and its number in there."""
    return os.path.realpath(row["image"]), row.get("frame")


def listed_once(rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """The rows without those that list a frame again and say the same of it, and the number of these."""
    kept: dict[tuple, Row] = {}
    for row in rows:
        kept.setdefault((*frame_key(row), *(row.get(key) for key in ("label", "group", "section", "fold"))), row)
    return list(kept.values()), +Counter({"rows of frames that are listed before": len(rows) - len(kept)})


def _relative(row: Row, folder: Path) -> Row:
    """The row with paths relative to a folder."""
    files = {key: row[key] for key in ("image", "label") if isinstance(row.get(key), str)}
    return row | {key: Path(os.path.relpath(path, folder)).as_posix() for key, path in files.items()}
