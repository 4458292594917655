"""What generated datasets have in common: a folder that holds exactly one of them, or is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["holds_generated"]


def holds_generated(path: Path, kind: str, arguments: Mapping[str, int]) -> bool:
    """Whether a folder holds exactly this generated dataset, complete.

    Args:
        path: the folder.
        kind: what the dataset is called; its ``datalist.json`` has the arguments it was made with under this key.
        arguments: those it should have been made with.

    Returns:
        False where the folder is absent or empty.

    Raises:
        ValueError: when it holds anything else.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    advice = "choose another folder or delete it."
    try:
        found = json.loads((path / "datalist.json").read_text(encoding="utf-8"))[kind]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is not empty and holds no complete {kind}: {advice}") from error
    if found != arguments:
        raise ValueError(f"'{path}' holds a {kind} made with {found}, not with {arguments}: {advice}")
    return True
