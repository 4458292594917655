"""A datalist: the frames of a task by section, their classes and where they came from."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_fetalkd.data.datalist.rows import Row
from monai_fetalkd.files import written_whole

__all__ = ["Datalist"]


@dataclass(frozen=True)
class Datalist:
    """The frames of a task by section.

    Args:
        path: where it was read from, for messages.
        class_names: the class names in the order of their labels.
        sections: the frames of ``training``, ``validation``, ``testing`` as far as there are any. A frame is a
            dictionary with ``image`` (path), ``label`` (int), ``group`` (patient), ``source`` and, where known,
            ``frame`` (index in a file of several), ``machine``, ``operator``, ``fold``.
        about: ``name``, ``description``, ``licence``, ``reference`` of the data where known.
        provenance: where the frames came from and how they were split; ``save`` adds the counts.

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

    def section(self, name: str) -> list[Row]:
        """The frames of a section.

        Args:
            name: ``"training"``, ``"validation"`` or ``"testing"``.

        Returns:
            Its frames, at least one.

        Raises:
            ValueError: when the section has no frames.
        """
        if rows := self.sections.get(name):
            return rows
        found = ", ".join(f"{len(rows)} in {name}" for name, rows in self.sections.items()) or "none at all"
        folds = {row["fold"] for rows in self.sections.values() for row in rows if "fold" in row}
        advice = f"; it has {len(folds)} folds: choose one of them for validation by 'fold'" if folds else ""
        raise ValueError(f"The datalist '{self.path}' has no frames in '{name}' ({found}){advice}.")

    def with_fold(self, fold: int) -> Datalist:
        """The same datalist with one of its folds as validation, the other folds as training.

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
        return Datalist(self.path, self.class_names, sections, self.about, self.provenance)

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of frames by section and class name."""
        counts = {section: Counter(row["label"] for row in rows) for section, rows in self.sections.items()}
        return {
            section: {name: count[label] for label, name in enumerate(self.class_names)}
            for section, count in counts.items()
        }

    def shared_groups(self) -> dict[str, dict[str, Row]]:
        """The groups with frames in more than one section: for each the first of its frames by section."""
        groups: dict[str, dict[str, Row]] = defaultdict(dict)
        for section, rows in self.sections.items():
            for row in rows:
                groups[row["group"]].setdefault(section, row)
        return {group: first for group, first in groups.items() if len(first) > 1}

    def require_groups_apart(self) -> None:
        """Refuse a group in more than one section: its frames resemble each other, so every figure would be too good.

        Raises:
            ValueError: naming such a group and its frames.
        """
        if not (shared := self.shared_groups()):
            return
        group, first = next(iter(shared.items()))
        where = " and ".join(f"'{section}' ('{row['image']}')" for section, row in first.items())
        raise ValueError(
            f"{len(shared)} group(s) of '{self.path}' have frames in more than one section, so that no figure could be "
            f"believed: '{group}' is in {where}. Split it anew by group (new_split)."
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
        for section, rows in self.sections.items():
            content[section] = [{**row, "image": _relative(row["image"], folder)} for row in rows]
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _relative(image: str, folder: Path) -> str:
    return Path(os.path.relpath(image, folder)).as_posix()
