"""Where the result of an evaluation is written, and where it is not."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_fetalkd.evaluation.scores.predictions import Predictions
from monai_fetalkd.utils.files import written_whole
from monai_fetalkd.utils.machine import check_writable

__all__ = ["check_output", "prediction_paths", "write_evaluation"]


def check_output(networks: Mapping[str, Predictions], folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse a folder for the result before the work is done.

    Args:
        networks: the predictions to be evaluated.
        folder: where the result shall be written.
        overwrite: an older result may be replaced.

    Raises:
        FileExistsError: if there is an older result and ``overwrite`` is not set.
        OSError: if the folder cannot be written.
        ValueError: if the folder, or one above it, holds frames that are evaluated.
    """
    folder = Path(folder)
    for frames in sorted({parent for network in networks.values() for parent in _frame_folders(network)}):
        if folder.resolve().is_relative_to(frames):
            raise ValueError(f"'{folder}' is in '{frames}', which holds frames evaluated: write the result elsewhere.")
    for file in ("metrics.json", *prediction_paths(networks)):
        if not overwrite and (folder / file).exists():
            raise FileExistsError(
                f"'{folder / file}' is an older result: take another folder, or allow to overwrite it."
            )
    check_writable(folder)


def write_evaluation(
    content: Mapping[str, Any],
    networks: Mapping[str, Predictions],
    folder: str | os.PathLike[str],
    overwrite: bool = False,
) -> None:
    """Write ``metrics.json`` and the predictions of each network as CSV.

    Args:
        content: what :func:`~monai_fetalkd.evaluation.scores.result.evaluate` returns.
        networks: the predictions that it was made from.
        folder: where to write; it is made where it does not exist.
        overwrite: replace an older result.

    Raises:
        FileExistsError: see :func:`check_output`.
        ValueError: see :func:`check_output`.
    """
    check_output(networks, folder, overwrite)
    folder = Path(folder)
    for name, network in networks.items():
        network.write(folder / content["networks"][name]["predictions"])
    # last, so that a folder with metrics.json is complete
    with written_whole(folder / "metrics.json") as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def prediction_paths(names: Iterable[str]) -> Iterator[str]:
    """A file for each network; names that differ by case or by odd characters alone do not share one.

    Args:
        names: of the networks.

    Yields:
        The path of its predictions from the folder of the result.

    Example:
        >>> list(prediction_paths(["stage 1/2", "Stage 1-2", "stage_1_2"]))
        ['predictions/stage_1_2.csv', 'predictions/stage_1-2.csv', 'predictions/stage_1_2_2.csv']
    """
    taken: set[str] = set()
    for name in names:
        slug = stem = re.sub(r"[^\w.-]+", "_", name).strip("._").lower() or "network"
        number = 1
        while slug in taken:
            number += 1
            slug = f"{stem}_{number}"
        taken.add(slug)
        yield f"predictions/{slug}.csv"


def _frame_folders(predictions: Predictions) -> Iterator[Path]:
    """Folders in which frames of these predictions are; their paths may be relative to a folder not known here."""
    for file in predictions.files:
        path = Path(re.sub(r"#\d+$", "", file))
        if path.is_file():
            yield path.resolve().parent
