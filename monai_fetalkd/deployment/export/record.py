"""What every export does with its folder, and what it says of itself in its report and in its ONNX files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any

from monai_fetalkd import __version__
from monai_fetalkd.deployment.runtime import Preprocessing
from monai_fetalkd.utils.files import written_whole
from monai_fetalkd.utils.machine import check_writable

__all__ = ["FLOAT32", "PROGRAM", "check_folder", "describe", "metadata_of", "write_report"]

FLOAT32, PROGRAM, _REPORT = "student.onnx", "student.pt2", "export.json"
_DISTRIBUTIONS = ("torch", "monai", "onnx", "onnxruntime", "onnxscript")


def check_folder(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Check that files of these names, and the report, may be written into a folder.

    Raises:
        FileExistsError: when there is an older export that may not be replaced.
        OSError: when the folder cannot be written.
    """
    older = [name for name in (*names, _REPORT) if (folder / name).exists()]
    if older and not overwrite:
        raise FileExistsError(
            f"There is an older export in '{folder}' ({', '.join(older)}): choose another folder or overwrite it "
            "(--overwrite)."
        )
    check_writable(folder)


def describe(
    ckpt: Path,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    settings: Mapping[str, object],
    licence: str,
    version: str | None,
) -> dict[str, Any]:
    """The beginning of a report: what was exported, when, and with which versions."""
    with ckpt.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "checkpoint": str(ckpt),
        "checkpoint_sha256": digest,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": licence,
        "version": version,
        "class_names": list(class_names),
        "preprocessing": preprocessing.to_dict(),
        "settings": dict(settings),
        "versions": {"monai_fetalkd": __version__, **{name: distribution_version(name) for name in _DISTRIBUTIONS}},
    }


def metadata_of(
    content: Mapping[str, Any], preprocessing: Preprocessing, outputs: Sequence[str], **more: str
) -> dict[str, str]:
    """What the runtime reads in an ONNX file.

    Args:
        content: the report, see :func:`describe`.
        preprocessing: what the runtime does to a frame.
        outputs: names of the outputs.
        more: what the task needs besides.
    """
    return {
        "class_names": json.dumps(content["class_names"], ensure_ascii=False),
        "preprocessing": json.dumps(preprocessing.to_dict()),
        "input": "image",
        "outputs": json.dumps(outputs),
        **more,
        **{name: content["versions"][name] for name in ("monai_fetalkd", "torch", "monai")},
        **{name: content[name] for name in ("created", "licence", "checkpoint_sha256")},
        **({} if content["version"] is None else {"version": content["version"]}),
    }


def write_report(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the report beside the files."""
    with written_whole(folder / _REPORT) as report:
        report.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
