"""The report of a check as text for a console of 100 columns."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from monai_fetalkd.ultrasound.data.check.report import CheckReport
from monai_fetalkd.utils.markdown import plain_table

__all__ = ["report_text"]

_WIDTH = 100
_MAX_LISTED = 20


def report_text(report: CheckReport) -> str:
    """Lay out the counts as tables, and the problems and warnings as lists of at most 20 sentences.

    Args:
        report: what a check has found.

    Returns:
        Several lines.

    Example:
        >>> from monai_fetalkd.ultrasound.data.check import check_datalist
        >>> from monai_fetalkd.ultrasound.data.datalist import Datalist
        >>> rows = [{"image": "a.png", "label": 0, "group": "p1", "source": "clinic"}]
        >>> datalist = Datalist("planes.json", ["brain"], {"training": rows, "testing": []})
        >>> print(report_text(check_datalist(datalist, duplicates=False)))
        class   training  testing  all
        brain          1        0    1
        all            1        0    1
        groups         1        0    1
        <BLANKLINE>
        class  clinic  all
        brain       1    1
        all         1    1
        <BLANKLINE>
        0 problems
    """
    balance = report.balance
    parts = [
        _table(balance.by_section, groups={**balance.groups, "all": balance.group_count}),
        _table(balance.by_source),
    ]
    if balance.unlabelled:
        parts.append(f"unlabelled: {balance.unlabelled} frames of {balance.unlabelled_groups} groups")
    if report.duplicates is not None:
        across = [pair for pair in report.duplicates if pair.across_sections]
        exact = sum(pair.exact for pair in across)
        parts.append(f"duplicates across sections: {exact} exact, {len(across) - exact} near")
    parts += [_listed("warning", report.warnings())] if report.warnings() else []
    parts.append(_listed("problem", report.problems()))
    return "\n\n".join(parts)


def _table(counts: Mapping[str, Mapping[str, int]], **footer: Mapping[str, int]) -> str:
    """Classes down, what `counts` tells apart across, sums at both ends."""
    columns = {**counts, "all": sum(map(Counter, counts.values()), Counter())}
    names = list(next(iter(counts.values()), ()))
    rows = {name: [column[name] for column in columns.values()] for name in names}
    rows["all"] = [sum(column.values()) for column in columns.values()]
    rows |= {name: [cells[column] for column in columns] for name, cells in footer.items()}
    return plain_table([["class", *columns], *([name, *map(str, cells)] for name, cells in rows.items())])


def _listed(kind: str, sentences: Sequence[str]) -> str:
    lines = [f"{len(sentences)} {kind}{'' if len(sentences) == 1 else 's'}{':' if sentences else ''}"]
    wrapper = textwrap.TextWrapper(_WIDTH, initial_indent="- ", subsequent_indent="  ")
    wrapper.break_long_words = wrapper.break_on_hyphens = False  # a path in one piece can be copied
    for sentence in sentences[:_MAX_LISTED]:
        lines += wrapper.wrap(sentence)
    if len(sentences) > _MAX_LISTED:
        lines.append(f"- and {len(sentences) - _MAX_LISTED} more, in the report (--output)")
    return "\n".join(lines)
