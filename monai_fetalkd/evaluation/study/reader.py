"""Reads a study from its JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any

from monai_fetalkd.evaluation.study.plan import Arm, Study

__all__ = ["read_study"]

# what the fields are, beyond their JSON type what their members are
_STUDY: dict[str, tuple[type | UnionType, type, str]] = {
    "configs": (list, str, "a list of files"),
    "bundle_root": (str, str, "a folder"),
    "arms": (dict, object, "an object of arms by name"),
    "references": (list, str, "a list of names of arms"),
    "seeds": (list, int, "a list of whole numbers"),
    "folds": (int | None, int, "a whole number, or null"),
    "nested": (bool, bool, "true or false"),
    "set": (dict, object, "an object of items and their values"),
}
_ARM: dict[str, tuple[type | UnionType, type, str]] = {
    "stage": (str, str, "the name of a stage"),
    "teacher": (str | None, str, "the name of an arm, or null"),
    "start_from": (str | None, str, "the name of an arm, or null"),
    "set": (dict, object, "an object of items and their values"),
    "scored": (bool, bool, "true or false"),
}


def read_study(path: str | os.PathLike[str]) -> Study:
    """Read a study.

    Args:
        path: JSON file with the fields of :class:`Study`; ``configs`` and ``bundle_root`` are relative to its folder.
            An arm is an object with the fields of :class:`Arm`.

    Returns:
        The study.

    Raises:
        FileNotFoundError: when the file or a config is not there.
        ValueError: when it is no such JSON.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"There is no study '{path}'.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"The study '{path}' is no valid JSON: {error}") from error
    _check_fields(content, Study, f"The study '{path}'")
    _check_values(content, _STUDY, f"The study '{path}'")
    for name, arm in content["arms"].items():
        _check_fields(arm, Arm, f"The arm '{name}' of '{path}'")
        _check_values(arm, _ARM, f"The arm '{name}' of '{path}'")
    configs = tuple(os.path.normpath(path.parent / config) for config in content["configs"])
    for config in configs:
        if not os.path.isfile(config):
            raise FileNotFoundError(f"The study '{path}' names the config '{config}', which does not exist.")
    return Study(
        configs=configs,
        bundle_root=os.path.normpath(path.parent / content["bundle_root"]),
        arms={name: Arm(**arm) for name, arm in content["arms"].items()},
        references=tuple(content.get("references", ())),
        seeds=tuple(content.get("seeds", (0,))),
        folds=content.get("folds"),
        nested=content.get("nested", False),
        set=content.get("set", {}),
    )


def _check_fields(content: Any, kind: type, what: str) -> None:
    required = {"configs", "bundle_root", "arms"} if kind is Study else {"stage"}
    names = {item.name for item in fields(kind)}
    if not isinstance(content, Mapping) or not required <= content.keys() <= names:
        raise ValueError(
            f"{what} must be a JSON object with {', '.join(sorted(required))} and, where wanted, "
            f"{', '.join(sorted(names - required))}."
        )


def _check_values(content: Mapping[str, Any], kinds: Mapping[str, tuple[Any, type, str]], what: str) -> None:
    for name, value in content.items():
        kind, member, told = kinds[name]
        members = value if isinstance(value, list) else []
        if not isinstance(value, kind) or not all(isinstance(each, member) for each in members):
            raise ValueError(f"{what}: '{name}' must be {told}, not {value!r}.")
