"""The labels of an annotator as files: JSON that names the plane of a frame, or of frames of a cine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fetalkd.ultrasound.data.datalist.rows import json_of, name_key, text_of

__all__ = ["annotated_rows", "parse_annotation", "read_annotation"]

_FORM = 'write {"label": "<class>"}, or {"frames": [{"frame": 0, "label": "<class>"}]} for frames of a cine'


def parse_annotation(text: str | bytes, class_names: Sequence[str], name: str = "annotation") -> list[dict[str, Any]]:
    """What an annotator says of one file.

    ``{"label": "Fetal brain"}`` labels a single frame, ``{"frames": [{"frame": 12, "label": "Fetal brain"}]}`` frames
    of a cine, counted from 0. ``"patient"`` may name the group of all of them, which a split keeps together. Names
    of classes match whatever their case, blanks, ``_`` and ``-``. Other keys are left to those who wrote them.

    Args:
        text: the JSON.
        class_names: the class table.
        name: what a message calls it, such as the path.

    Returns:
        ``label`` (position in the class table) and, where given, ``frame`` and ``group`` of each labelled frame.

    Raises:
        ValueError: when it is no such JSON, names an unknown class, or the same frame twice.

    Example:
        >>> parse_annotation('{"frames": [{"frame": 3, "label": "brain"}], "patient": "p7"}', ["abdomen", "brain"])
        [{'label': 1, 'frame': 3, 'group': 'p7'}]
    """
    try:
        content = json_of(text)
    except ValueError as error:
        raise ValueError(f"The label '{name}' is no valid JSON ({error}): {_FORM}.") from error
    if not isinstance(content, Mapping) or ("label" in content) == ("frames" in content):
        raise ValueError(f"The label '{name}' must hold either 'label' or 'frames': {_FORM}.")
    given = [content] if "label" in content else content["frames"]
    if not isinstance(given, list) or not given or not all(isinstance(each, Mapping) for each in given):
        raise ValueError(f"'frames' of the label '{name}' must be a list of one frame at least: {_FORM}.")
    patient = text_of(content.get("patient"))
    group = {"group": patient} if patient is not None else {}
    rows: list[dict[str, Any]] = [
        {"label": _label(each, class_names, name), **_frame(each, content, name), **group} for each in given
    ]
    numbers = [row["frame"] for row in rows if "frame" in row]
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"The label '{name}' names a frame twice: {sorted(numbers)}.")
    return rows


def read_annotation(path: str | os.PathLike[str], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Read the file of an annotation, see :func:`parse_annotation`.

    Args:
        path: the JSON file.
        class_names: the class table.

    Returns:
        Its labelled frames.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: as :func:`parse_annotation` says.
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"The label '{os.fspath(path)}' does not exist.") from None
    return parse_annotation(text, class_names, os.fspath(path))


def annotated_rows(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows whose labels are files, as MONAI Label hands them over, as rows of labelled frames.

    Args:
        rows: rows with ``image`` and ``label``; one whose label is a path becomes a row for each frame that the file
            labels, any other stays as it is. Without ``patient`` in the file, the image is a group of its own.
        class_names: the class table.

    Returns:
        Rows whose labels are positions in the class table.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: as :func:`parse_annotation` says.

    Example:
        >>> annotated_rows([{"image": "a.png", "label": 1}], ["abdomen", "brain"])
        [{'image': 'a.png', 'label': 1}]
    """
    expanded: list[dict[str, Any]] = []
    for row in rows:
        label = row.get("label")
        if isinstance(label, str | os.PathLike):
            own = {"group": str(row["image"]), **row}
            expanded += [{**own, **each} for each in read_annotation(label, class_names)]
        else:
            expanded.append(dict(row))
    return expanded


def _label(given: Mapping[str, Any], class_names: Sequence[str], name: str) -> int:
    label = given.get("label")
    keys = list(map(name_key, class_names))
    if not isinstance(label, str) or name_key(label) not in keys:
        raise ValueError(f"The label '{name}' names the class {label!r}: use one of {', '.join(class_names)}.")
    return keys.index(name_key(label))


def _frame(given: Mapping[str, Any], content: Mapping[str, Any], name: str) -> dict[str, int]:
    if given is content and "frame" not in given:
        return {}
    frame = given.get("frame")
    if type(frame) is not int or frame < 0:
        raise ValueError(f"The label '{name}' gives {frame!r} as 'frame': frames are counted 0, 1, 2.")
    return {"frame": frame}
