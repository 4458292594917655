"""The form that every source is read into before it becomes a datalist, and how its words are understood."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["SECTIONS", "UNLABELLED", "Row", "Source", "json_of", "name_key", "section_of", "text_of", "without"]

SECTIONS = ("training", "validation", "testing")
UNLABELLED = "unlabelled"

# a frame: image, label, group, source and, where known, frame, machine, operator, fold
Row = dict[str, Any]

_SECTION = re.compile(r"(?:(train(?:ing)?)|(val(?:id(?:ation)?)?)|(test(?:ing)?)|(unlabell?ed))(?:set|split|data)?")
_NO_VALUE = {"", "-", "?", "nan", "nat", "none", "null", "nil", "na", "n/a", "#n/a", "<na>"}


def without(row: Row, *keys: str) -> Row:
    """A copy of a row without these keys."""
    return {key: value for key, value in row.items() if key not in keys}


def name_key(name: str) -> str:
    """What two spellings of one name have in common: case, blanks, ``_``, ``-`` and Unicode form make no difference.

    Example:
        >>> name_key("Patient_ID") == name_key("patient id")
        True
    """
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name)).casefold()


def section_of(word: str) -> str | None:
    """The section of a datalist that a word such as ``val`` stands for; ``None`` for any other word.

    Example:
        >>> section_of("Train"), section_of("test_set"), section_of("dev")
        ('training', 'testing', None)
    """
    match = _SECTION.fullmatch(name_key(word))
    return (*SECTIONS, UNLABELLED)[match.lastindex - 1] if match and match.lastindex else None


def text_of(value: Any) -> str | None:
    """A value as text in one Unicode form, without blanks around it; ``None`` for what stands for no value.

    Example:
        >>> text_of(" brain "), text_of(7), text_of("NaN"), text_of(None)
        ('brain', '7', None, None)
    """
    text = unicodedata.normalize("NFC", str(value)).strip()
    return None if text.casefold() in _NO_VALUE else text


def json_of(text: str | bytes) -> Any:
    """The content of a JSON text in which no object has a key twice, in UTF-8 with or without byte-order mark.

    Raises:
        ValueError: when it is none.

    Example:
        >>> json_of('{"label": "brain"}'.encode("utf-8-sig"))
        {'label': 'brain'}
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            key = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"the key '{key}' is there twice in one object")
        return content

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None


@dataclass(frozen=True)
class Source:
    """The frames of a source as it holds them: labels still names, groups still what the source calls its patients.

    Args:
        kind: what the source is, in words.
        name: name of the folder or file, without the path to it, which may name a person.
        root: the folder of the source.
        rows: a dictionary for each frame: ``image`` (path), ``source``, ``label`` unless its section is
            ``unlabelled``; ``group`` where known; ``section`` where the source has a split of its own; ``frame``,
            ``machine``, ``operator``, ``fold`` where known.
        groups_from: where the groups were looked for, for messages.
        class_names: the class table where the source brings one.
        about: ``name``, ``description``, ``licence``, ``reference`` of the data where known.
        record: what else the provenance says of the source.
        settings: how the source was read.
        left_out: how many files, rows or frames were left out, by what they are.
        pseudonymous: whether the groups are known to be pseudonyms already.
        complete: whether its sections stand as they are, without a validation section too.
        masks: whether the labels are paths of masks, for segmentation.
    """

    kind: str
    name: str
    root: Path
    rows: list[Row]
    groups_from: str
    class_names: Sequence[str] | None = None
    about: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    pseudonymous: bool = False
    complete: bool = False
    masks: bool = False
