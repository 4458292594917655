"""How many frames of each class a datalist holds, in which section, from which source, of how many groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from monai_fetalkd.ultrasound.data.datalist import Datalist

__all__ = ["Balance", "count_balance"]


@dataclass(frozen=True)
class Balance:
    """Counts of frames and groups.

    Args:
        by_section: section -> class -> frames.
        by_source: source -> class -> frames.
        groups: section -> groups.
        group_count: groups of the sections; one that is in two of them counts once.
        unlabelled: frames without a label.
        unlabelled_groups: groups of these.
    """

    by_section: dict[str, dict[str, int]]
    by_source: dict[str, dict[str, int]]
    groups: dict[str, int]
    group_count: int
    unlabelled: int = 0
    unlabelled_groups: int = 0

    def warnings(self) -> list[str]:
        """What makes a metric misleading: classes absent from a section or given away by their source, no groups."""
        absent = [
            f"The class '{name}' has no frame in {section}: nothing can be said of it there."
            for section, counts in self.by_section.items()
            for name, count in counts.items()
            if not count and any(counts.values())
        ]
        confounded = []
        for name in next(iter(self.by_source.values()), {}):
            sources = [source for source, counts in self.by_source.items() if counts[name]]
            if len(sources) == 1 < len(self.by_source):
                confounded.append(
                    f"The class '{name}' comes from '{sources[0]}' alone: a network can tell it by its source. "
                    "Report by source."
                )
        frames = sum(sum(counts.values()) for counts in self.by_section.values())
        ungrouped = []
        if 1 < frames == self.group_count:
            ungrouped.append("Every frame is a group of its own: nothing keeps the frames of a patient in one split.")
        if 1 == self.group_count < frames:
            ungrouped.append("All frames are of one group: they cannot be split by patient.")
        return absent + confounded + ungrouped


def count_balance(datalist: Datalist) -> Balance:
    """Count the frames of each class.

    Args:
        datalist: frames by section.

    Returns:
        The counts, 0 where a class is absent.

    Example:
        >>> rows = [{"label": 1, "group": "a", "source": "x"}, {"label": 1, "group": "a", "source": "y"}]
        >>> balance = count_balance(Datalist("planes.json", ["abdomen", "brain"], {"training": rows, "testing": []}))
        >>> balance.by_section
        {'training': {'abdomen': 0, 'brain': 2}, 'testing': {'abdomen': 0, 'brain': 0}}
        >>> balance.by_source
        {'x': {'abdomen': 0, 'brain': 1}, 'y': {'abdomen': 0, 'brain': 1}}
        >>> balance.groups
        {'training': 1, 'testing': 0}
    """
    rows = [row for rows in datalist.sections.values() for row in rows]
    by_section = datalist.counts()
    names = list(next(iter(by_section.values()), ()))
    sources = sorted({row["source"] for row in rows})
    in_source = Counter((row["source"], datalist.class_of(row)) for row in rows)
    return Balance(
        by_section=by_section,
        by_source={source: {name: in_source[source, name] for name in names} for source in sources},
        groups={section: len({row["group"] for row in rows}) for section, rows in datalist.sections.items()},
        group_count=len({row["group"] for row in rows}),
        unlabelled=len(datalist.unlabelled),
        unlabelled_groups=len({row["group"] for row in datalist.unlabelled}),
    )
