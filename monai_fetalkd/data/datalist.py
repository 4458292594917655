"""From a datalist on disk to the list of frames of one split."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["load_datalist"]

# the sections of a MONAI datalist, and what the column `split` of a table calls them
_SPLITS = {"train": "training", "val": "validation", "test": "testing"}


def load_datalist(
    path: str | PathLike[str], section: str, class_names: Sequence[str], allow_empty: bool = False
) -> list[dict[str, Any]]:
    r"""Read one section of a datalist and check every row before any training starts.

    The datalist is a MONAI datalist (JSON with lists ``training``, ``validation``, ``testing``), or a table (CSV with
    columns ``image``, ``label``, ``split`` of train / val / test, and any others). Image paths are relative to its
    folder. A label is an integer class or the name of one.

    Args:
        path: the datalist, or a folder that holds one as ``datalist.json``.
        section: ``"training"``, ``"validation"`` or ``"testing"``.
        class_names: the class table; the label of a name is its position.
        allow_empty: whether a section without frames is an empty list rather than an error.

    Returns:
        A dictionary for each frame: ``image`` (path as str), ``label`` (int) and whatever else the row holds.

    Raises:
        FileNotFoundError: when the datalist or an image is not there.
        ValueError: when the datalist cannot be read, the section is empty, or a label is outside the class table.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.png").touch()
        >>> _ = (folder / "planes.csv").write_text("image,label,split\na.png,brain,train\n")
        >>> frame, = load_datalist(folder / "planes.csv", "training", ["abdomen", "brain"])
        >>> frame["label"]
        1
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"The dataset '{path}' does not exist: give its folder or datalist as --dataset_dir.")
    if path.is_dir():
        path = path / "datalist.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no '{path.name}' in the folder '{path.parent}': add one, or give the path of a datalist "
                "(JSON or CSV) as --dataset_dir."
            )
    sections = _read_table(path) if path.suffix.lower() == ".csv" else _read_json(path)
    rows = sections.get(section, [])
    if not rows and not allow_empty:
        found = ", ".join(f"{len(rows)} in {name}" for name, rows in sections.items()) or "none at all"
        raise ValueError(f"The datalist '{path}' has no frames in '{section}' ({found}).")
    return [_checked(row, path, class_names) for row in rows]


def _read_table(path: Path) -> dict[str, list]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = {"image", "label", "split"} - set(reader.fieldnames or ())
        if absent:
            raise ValueError(f"The table '{path}' has no column {', '.join(sorted(absent))}.")
        sections: dict[str, list] = {name: [] for name in _SPLITS.values()}
        for row in reader:
            split = row.pop("split")
            if split not in _SPLITS:
                raise ValueError(f"'{path}', line {reader.line_num}: split '{split}' is none of {', '.join(_SPLITS)}.")
            sections[_SPLITS[split]].append(row)
    return sections


def _read_json(path: Path) -> dict[str, list]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"The datalist '{path}' is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"The datalist '{path}' must be a JSON object with lists such as 'training'.")
    return {name: content[name] for name in _SPLITS.values() if isinstance(content.get(name), list)}


def _checked(row: Any, path: Path, class_names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not {"image", "label"} <= row.keys():
        raise ValueError(f"The datalist '{path}' has a row without 'image' or 'label': {row!r}.")
    image = path.parent / str(row["image"])
    if not image.is_file():
        raise FileNotFoundError(f"The image '{image}' of the datalist '{path}' does not exist.")
    label = row["label"]
    if label in class_names:
        label = class_names.index(label)
    elif isinstance(label, str) and label.isdecimal():
        label = int(label)
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(class_names):
        table = ", ".join(f"{index} {name}" for index, name in enumerate(class_names))
        raise ValueError(f"The label {row['label']!r} of '{image}' is outside the class table ({table}).")
    return {**row, "image": str(image), "label": label}
