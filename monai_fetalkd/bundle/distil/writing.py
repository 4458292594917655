"""The files of a student bundle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from monai_fetalkd.utils.files import folder_written_whole

from .config import read_file
from .overlay import overlay_config
from .plan import DistillationPlan
from .readme import readme

__all__ = ["write_bundle"]

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_COPIED = ("LICENSE", "docs/data_license.txt", "configs/logging.conf")


def write_bundle(plan: DistillationPlan, folder: Path) -> None:
    """Write the student bundle, whole or not at all.

    Args:
        plan: what has been found out.
        folder: the new folder.

    Raises:
        FileExistsError: when there is such a folder already.
        FileNotFoundError: when the folder around it does not exist.
    """
    with folder_written_whole(folder) as part:
        (part / "configs").mkdir()
        (part / "docs").mkdir()
        _write_json(part / "configs" / "distill.json", overlay_config(plan, folder))
        _write_json(part / "configs" / "inference.json", plan.inference.raw)
        _write_json(part / "configs" / "metadata.json", _metadata(plan))
        if (export := plan.teacher.root / "configs" / "export.json").is_file():
            _write_json(part / "configs" / "export.json", _export(export))
        (part / "docs" / "README.md").write_text(readme(plan, folder, has_scripts(plan)), encoding="utf-8")
        for name in (*_COPIED, *_needed_files(plan)):
            source = plan.teacher.root / name
            if source.is_file():
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, part / name)
        if has_scripts(plan):
            shutil.copytree(
                plan.teacher.root / "scripts", part / "scripts", ignore=shutil.ignore_patterns("__pycache__")
            )


def has_scripts(plan: DistillationPlan) -> bool:
    """Whether a config of the teacher bundle uses Python modules of its own, so that the student bundle holds them."""
    texts = (json.dumps(config.raw, default=str) for config in (plan.teacher.train, plan.inference))
    return (plan.teacher.root / "scripts").is_dir() and any(re.search(r"\bscripts\b", text) for text in texts)


def _needed_files(plan: DistillationPlan) -> Iterator[str]:
    """Files of the teacher bundle that inference reads, beside its weights: a class table, an architecture."""
    inference, root = plan.teacher.inference, plan.teacher.root.resolve()
    for id, text in inference.written(*inference.raw).items():
        if isinstance(text, str) and text.startswith("$") and "@bundle_root" in text:
            try:
                path = Path(inference.value(id)).resolve()
            except Exception:  # an expression may be of any kind
                continue
            if path.is_relative_to(root) and path != plan.teacher.weights.resolve():
                yield path.relative_to(root).as_posix()


def _export(path: Path) -> dict[str, Any]:
    """The config by which the teacher bundle exports its network, for the student."""
    config = read_file(path)
    if isinstance(export := config.get("export"), dict):
        export["network"] = "@distil#student#network"
    return config


def _metadata(plan: DistillationPlan) -> dict[str, Any]:
    teacher = plan.teacher
    metadata = dict(teacher.metadata)
    packages = {**metadata.pop("optional_packages_version", {}), **metadata.get("required_packages_version", {})}
    name = metadata.get("name", teacher.name)
    text = f"The network of '{name}' {teacher.version}, made smaller and distilled from it"
    given = {key: value for key, value in metadata.items() if value not in (None, "")}
    return {
        "task": name,
        "authors": "unknown",
        "copyright": "see LICENSE",
        **given,
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"distilled from {teacher.name} {teacher.version} with python -m monai_fetalkd init"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": packages,
        "name": f"{name}, distilled",
        "description": f"{text}. {metadata.get('description', '')}".strip(),
        "eval_metrics": {},  # those of the teacher are not its own
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, default=str) + "\n", encoding="utf-8")
