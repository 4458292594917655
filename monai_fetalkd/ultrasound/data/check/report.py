"""The check of a datalist before anything is trained on it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from monai_fetalkd.ultrasound.data.check.balance import Balance, count_balance
from monai_fetalkd.ultrasound.data.check.duplicates import MIN_CORRELATION, find_pairs
from monai_fetalkd.ultrasound.data.check.fingerprints import Fingerprint, read_fingerprints
from monai_fetalkd.ultrasound.data.datalist import Datalist
from monai_fetalkd.ultrasound.data.datalist.datalist import frame_key
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED, Row
from monai_fetalkd.ultrasound.frames import FrameError, count_frames
from monai_fetalkd.utils.files import written_whole

__all__ = ["CheckReport", "Duplicate", "Place", "check_datalist"]


@dataclass(frozen=True)
class Place:
    """Where a frame stands: its file, its number in a file of several, its section, class and group."""

    image: str
    frame: int | None
    section: str
    label: str
    group: str

    def __str__(self) -> str:
        frame = "" if self.frame is None else f", frame {self.frame}"
        return f"'{self.image}'{frame} ({self.section}, {self.label}, group {self.group})"


@dataclass(frozen=True)
class Duplicate:
    """Two frames of different sections, groups or classes that are the same (`exact`), or nearly."""

    first: Place
    second: Place
    correlation: float
    exact: bool

    @property
    def across_sections(self) -> bool:
        """Whether one is held out and the other is not: an unlabelled frame is for training."""
        sections = {self.first.section, self.second.section}
        return len(sections) > 1 and (UNLABELLED not in sections or bool(sections & {"validation", "testing"}))

    @property
    def contradicts(self) -> bool:
        """Whether one frame is there as two classes."""
        return self.exact and UNLABELLED not in (labels := {self.first.label, self.second.label}) and len(labels) > 1

    def __str__(self) -> str:
        likeness = "are the same frame" if self.exact else f"are nearly the same frame (correlation {self.correlation})"
        return f"{self.first} and {self.second} {likeness}."


@dataclass(frozen=True)
class CheckReport:
    """What the check of a datalist found.

    Args:
        datalist: path of the datalist.
        balance: counts by class, section and source.
        torn_groups: groups in more than one section: group -> section -> the first of its images there.
        contradictions: frames that are listed with two labels or groups: for each its places.
        duplicates: pairs of frames across sections or groups; None where the frames were not read.
        unreadable: a sentence for each frame that cannot be read.
    """

    datalist: str
    balance: Balance
    torn_groups: dict[str, dict[str, str]]
    contradictions: list[list[Place]]
    duplicates: list[Duplicate] | None
    unreadable: list[str]

    def problems(self) -> list[str]:
        """What invalidates a metric measured on this datalist, each in a sentence."""
        torn = []
        for group, images in self.torn_groups.items():
            places = " and ".join(f"{section} ('{image}')" for section, image in images.items())
            torn.append(f"The group {group} is in {places}.")
        twice = [
            f"One frame is listed with two labels or groups: {' and '.join(map(str, places))}."
            for places in self.contradictions
        ]
        pairs = [
            f"{pair} They have two labels." if pair.contradicts else str(pair)
            for pair in self.duplicates or ()
            if pair.across_sections or pair.contradicts
        ]
        return torn + twice + pairs + self.unreadable

    def warnings(self) -> list[str]:
        """What a reader of the metrics must know, each in a sentence."""
        found = self.balance.warnings()
        pairs = [pair for pair in self.duplicates or () if not (pair.across_sections or pair.contradicts)]
        if pairs:
            count = f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'}"
            found.append(
                f"Frames of one section are the same, or nearly, under two groups ({count}): give such groups one key, "
                f"since another split can separate them. {pairs[0]}"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON types, problems and warnings included."""
        return {**asdict(self), "problems": self.problems(), "warnings": self.warnings()}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON."""
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_datalist(
    datalist: Datalist,
    *,
    duplicates: bool = True,
    min_correlation: float = MIN_CORRELATION,
    workers: int | None = None,
    progress: bool = True,
) -> CheckReport:
    """Check a datalist: class balance, groups in two splits, frames with two labels or unreadable, duplicates.

    Duplicates are looked for between sections, and between groups within a section: a patient with two keys does no
    harm there, but would in another split. Within a group, the same pixels under two labels are looked for. Unlabelled
    frames are compared with those held out. Where frames carry ``fold``, each fold is a section of its own.

    Args:
        datalist: frames by section, such as :func:`monai_fetalkd.ultrasound.data.datalist.read_source` gives.
        duplicates: whether to read the frames and look for duplicates.
        min_correlation: from which two frames are nearly the same, see :func:`find_pairs`.
        workers: processes that read frames, see :func:`read_fingerprints`.
        progress: whether to show a bar on stderr while frames are read.

    Returns:
        The report.

    Raises:
        ValueError: when ``min_correlation`` or ``workers`` is out of its range.

    Example:
        >>> frame = {"image": "a.png", "label": 0, "group": "p1", "source": "clinic"}
        >>> sections = {"training": [frame], "testing": [{**frame, "image": "b.png"}]}
        >>> check_datalist(Datalist("planes.json", ["brain"], sections), duplicates=False).problems()
        ["The group p1 is in training ('a.png') and testing ('b.png')."]
    """
    if not 0 < min_correlation <= 1:
        raise ValueError(f"min_correlation must be above 0 and at most 1, got {min_correlation}.")
    datalist = replace(datalist, sections=_with_folds(datalist.sections))
    pairs, unreadable = None, []
    if duplicates:
        rows = [(name, row) for name, rows in datalist.sections.items() for row in rows]
        rows += [(UNLABELLED, row) for row in datalist.unlabelled]
        files = [_middle_of_volume(row) if datalist.has_masks else row for _, row in rows]
        results = read_fingerprints(files, workers, progress)
        unreadable = [result for result in results if isinstance(result, str)]
        pairs = _duplicates(datalist, rows, results, min_correlation)
    return CheckReport(
        datalist=datalist.path,
        balance=count_balance(datalist),
        torn_groups={
            group: {section: row["image"] for section, row in first.items()}
            for group, first in datalist.shared_groups().items()
        },
        contradictions=[
            [_place(datalist, section, row) for section, row in rows] for rows in datalist.contradictions()
        ],
        duplicates=pairs,
        unreadable=unreadable,
    )


def _with_folds(sections: dict[str, list[Row]]) -> dict[str, list[Row]]:
    split: dict[str, list[Row]] = {}
    for name, rows in sections.items():
        folds = sorted({row["fold"] for row in rows if "fold" in row})
        split |= {f"fold {fold}": [row for row in rows if row.get("fold") == fold] for fold in folds}
        rest = [row for row in rows if "fold" not in row]
        if rest or not folds:
            split[name] = rest
    return split


def _middle_of_volume(row: Row) -> Row:
    try:
        count = count_frames(row["image"])
    except (FrameError, FileNotFoundError):
        return row  # whoever reads it will name it
    return row | {"frame": count // 2} if count > 1 else row


def _place(datalist: Datalist, section: str, row: Row) -> Place:
    return Place(row["image"], row.get("frame"), section, datalist.class_of(row), row["group"])


def _duplicates(
    datalist: Datalist,
    rows: Sequence[tuple[str, Row]],
    results: Sequence[Fingerprint | str],
    min_correlation: float,
) -> list[Duplicate]:
    read = [(row, result) for row, result in zip(rows, results, strict=True) if isinstance(result, Fingerprint)]
    places = [_place(datalist, section, row) for (section, row), _ in read]
    # one frame listed twice is a contradiction, which is told without its pixels
    files = [frame_key(row) for (_, row), _ in read]
    keys = [(place.section, place.group, place.label) for place in places]
    pairs = [
        Duplicate(places[pair.first], places[pair.second], pair.correlation, pair.exact)
        for pair in find_pairs([result for _, result in read], keys, min_correlation=min_correlation)
        if files[pair.first] != files[pair.second] or places[pair.first].section != places[pair.second].section
    ]
    return [
        pair
        for pair in pairs
        if pair.across_sections
        or pair.contradicts
        or (pair.first.section == pair.second.section != UNLABELLED and pair.first.group != pair.second.group)
    ]
