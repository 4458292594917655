"""Datalists that are there already, in MONAI's JSON form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fetalkd.data.datalist.rows import SECTIONS, Row, Source
from monai_fetalkd.data.datalist.table import sha256_of

__all__ = ["read_json_datalist"]

_ABOUT = ("name", "description", "licence", "reference")
_OPTIONAL = ("frame", "machine", "operator", "fold")


def read_json_datalist(path: str | os.PathLike[str]) -> Source:
    """Read a MONAI datalist: lists ``training``, ``validation``, ``testing`` of ``{"image": ..., "label": ...}``.

    A frame without ``group`` is a group of its own, one without ``source`` is of the datalist's name. Keys that a
    datalist of this package does not have are dropped: they may hold names.

    Args:
        path: the JSON file; image paths are relative to its folder.

    Returns:
        Its frames. Groups count as pseudonyms where the datalist was made by this package, as its ``provenance`` says.

    Raises:
        ValueError: when it is no such JSON.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "datalist.json"
        >>> _ = path.write_text('{"name": "clinic", "training": [{"image": "a.png", "label": 1}]}')
        >>> row, = read_json_datalist(path).rows
        >>> row["group"], row["source"], row["section"]
        ('a.png', 'clinic', 'training')
    """
    path = Path(path).absolute()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"The datalist '{path}' is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"The datalist '{path}' must be a JSON object with lists such as 'training'.")
    about = {key: content[key] for key in _ABOUT if isinstance(content.get(key), str)}
    name = about.get("name", path.stem)
    rows = [
        _row(row, f"number {number} of '{section}'", section, path, name)
        for section in _sections(content)
        for number, row in enumerate(content[section], start=1)
    ]
    record = {"sha256": sha256_of(path)}
    if ours := _made_here(content.get("provenance")):
        record["provenance"] = content["provenance"]
    return Source(
        "datalist",
        path.name,
        rows,
        class_names=_class_names(content["labels"], path) if "labels" in content else None,
        about=about,
        record=record,
        pseudonymous=ours,
        complete=True,
    )


def _made_here(provenance: Any) -> bool:
    return isinstance(provenance, Mapping) and str(provenance.get("made_by", "")).startswith("monai_fetalkd ")


def _sections(content: dict[str, Any]) -> list[str]:
    return [name for name in SECTIONS if isinstance(content.get(name), list)]


def _row(row: Any, where: str, section: str, path: Path, name: str) -> Row:
    if not isinstance(row, Mapping) or not {"image", "label"} <= row.keys():
        raise ValueError(f"The datalist '{path}' has a row without 'image' or 'label': {where}.")
    return {
        "image": os.path.normpath(os.path.join(path.parent, str(row["image"]))),
        "label": row["label"],
        "group": str(row.get("group", row["image"])),
        "source": str(row.get("source", name)),
        "section": section,
        **{key: row[key] for key in _OPTIONAL if key in row},
    }


def _class_names(labels: Any, path: Path) -> list[str]:
    if isinstance(labels, Mapping) and set(labels) == {str(label) for label in range(len(labels))}:
        return [str(labels[str(label)]) for label in range(len(labels))]
    raise ValueError(
        f"'labels' of the datalist '{path}' must give a name to each label from 0, such as {{'0': 'brain'}}."
    )
