"""The one form that every source is read into before it becomes a datalist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SECTIONS", "Row", "Source", "section_of"]

SECTIONS = ("training", "validation", "testing")

# a frame: image, label, group, source and, where known, frame, machine, operator, fold
Row = dict[str, Any]

_WORDS = {
    "training": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "testing": ("test", "testing"),
}


def section_of(word: str) -> str | None:
    """The section of a datalist that a word such as ``val`` stands for; ``None`` for any other word.

    Example:
        >>> section_of("Train"), section_of("valid"), section_of("dev")
        ('training', 'validation', None)
    """
    return next((section for section, words in _WORDS.items() if word.strip().casefold() in words), None)


@dataclass(frozen=True)
class Source:
    """The frames of a source as it holds them: labels still names, groups still what the source calls its patients.

    Args:
        kind: what the source is, in words.
        name: name of the folder or file, without the path to it, which may name a person.
        rows: a dictionary for each frame: ``image`` (path), ``label``, ``group``, ``source``; ``section`` where the
            source has a split of its own; ``frame``, ``machine``, ``operator``, ``fold`` where known.
        class_names: the class table where the source brings one.
        about: ``name``, ``description``, ``licence``, ``reference`` of the data where known.
        record: what else the provenance says of the source.
        settings: how the source was read.
        left_out: how many frames were left out, by reason.
        pseudonymous: whether the groups are known to be pseudonyms already.
        complete: whether its sections stand as they are, without a validation section too.
    """

    kind: str
    name: str
    rows: list[Row]
    class_names: Sequence[str] | None = None
    about: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    pseudonymous: bool = False
    complete: bool = False
