"""Datalists that are there already, in MONAI's JSON form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fetalkd.ultrasound.data.datalist.images import ImageFolder, has_image_suffix
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED, Row, Source, json_of, section_of, text_of
from monai_fetalkd.ultrasound.data.datalist.table import sha256_of

__all__ = ["read_json_datalist"]

_ABOUT = ("name", "description", "licence", "reference")


def read_json_datalist(path: str | os.PathLike[str]) -> Source:
    """Read a MONAI datalist: lists ``training``, ``validation``, ``testing`` of ``{"image": ..., "label": ...}``.

    A list ``unlabelled`` holds frames without labels, as does that of the Medical Segmentation Decathlon that is called
    ``test`` and holds paths. Where labels are image files, the frames are for segmentation. A frame without ``source``
    is of the datalist's name. Keys that a datalist of this package does not have are dropped: they may hold names.

    Args:
        path: the JSON file; image paths are relative to its folder.

    Returns:
        Its frames. Groups count as pseudonyms where the datalist was made by this package, as its ``provenance`` says.

    Raises:
        ValueError: when it is no such JSON.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "datalist.json"
        >>> _ = path.write_text('{"name": "clinic", "training": [{"image": "a.png", "label": 1, "group": "p1"}]}')
        >>> row, = read_json_datalist(path).rows
        >>> row["group"], row["source"], row["section"]
        ('p1', 'clinic', 'training')
    """
    path = Path(path).absolute()
    try:
        content = json_of(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"The datalist '{path}' is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"The datalist '{path}' must be a JSON object with lists such as 'training'.")
    about = {key: content[key] for key in _ABOUT if isinstance(content.get(key), str)}
    name = about.get("name", path.stem)
    lists, left_out = _sections(content, path)
    images = ImageFolder(path.parent)
    rows = [
        {"source": name, "section": section} | _row(row, section, f"'{path}', number {number} of '{key}'", images)
        for section, key in lists.items()
        for number, row in enumerate(content[key], start=1)
    ]
    masks = [isinstance(row["label"], str) and has_image_suffix(row["label"]) for row in rows if "label" in row]
    if all(masks):
        rows = [row | {"label": images.find(row["label"])} if "label" in row else row for row in rows]
    record = {"sha256": sha256_of(path)}
    if ours := _made_here(content.get("provenance")):
        record["provenance"] = content["provenance"]
    return Source(
        "datalist",
        path.name,
        path.parent,
        rows,
        groups_from="the key 'group'",
        class_names=_class_names(content["labels"], path) if "labels" in content else None,
        about=about,
        record=record,
        left_out=left_out,
        pseudonymous=ours,
        complete=True,
        masks=bool(masks) and all(masks),
    )


def _made_here(provenance: Any) -> bool:
    return isinstance(provenance, Mapping) and str(provenance.get("made_by", "")).startswith("monai_fetalkd ")


def _sections(content: dict[str, Any], path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """The key of each section, and the number of rows under keys that are none."""
    lists: dict[str, str] = {}
    left_out = {}
    for key, rows in content.items():
        if not isinstance(rows, list):
            continue
        section = section_of(key)
        if section == "testing" and rows and all(isinstance(row, str) for row in rows):
            section = UNLABELLED  # as the Medical Segmentation Decathlon lists its test images
        if section is None:
            if any(isinstance(row, Mapping) and "image" in row for row in rows):
                left_out[f"rows of '{key}', which is no split"] = len(rows)
        elif section in lists:
            raise ValueError(f"The datalist '{path}' has two lists for {section}: '{lists[section]}' and '{key}'.")
        else:
            lists[section] = key
    return lists, left_out


def _row(row: Any, section: str, where: str, images: ImageFolder) -> Row:
    if section == UNLABELLED and isinstance(row, str):
        row = {"image": row}
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: a row must be an object with 'image' and 'label', not {row!r}.")
    values: Row = {
        key: text
        for key in ("image", "group", "source", "machine", "operator")
        if (text := text_of(row.get(key))) is not None
    }
    if section != UNLABELLED and (label := _label(row.get("label"))) is not None:
        values["label"] = label
    for key in ("image", "label")[: 1 if section == UNLABELLED else 2]:
        if key not in values:
            raise ValueError(f"{where}: there is no '{key}'; give it, or take the row out.")
    for key in ("frame", "fold"):
        number = row.get(key)
        if number is None:
            continue
        if type(number) is not int or number < 0:
            raise ValueError(f"{where}: {key} {number!r} is no number from 0.")
        values[key] = number
    return values | {"image": images.find(values["image"])}


def _label(label: Any) -> Any:
    """A label as it is written, a number too; ``None`` for what stands for no value."""
    return label if isinstance(label, int | float) and label == label else text_of(label)


def _class_names(labels: Any, path: Path) -> list[str]:
    if isinstance(labels, Mapping) and set(labels) == {str(label) for label in range(len(labels))}:
        return [str(labels[str(label)]) for label in range(len(labels))]
    raise ValueError(
        f"'labels' of the datalist '{path}' must give a name to each label from 0, such as {{'0': 'brain'}}."
    )
