"""The phantom as a dataset on disk."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from PIL import Image

from monai_fetalkd import __version__
from monai_fetalkd.bundle.generated import holds_generated
from monai_fetalkd.ultrasound.data.phantom.frames import PLANE_NAMES, Patient, phantom_frame
from monai_fetalkd.utils.files import folder_written_whole

__all__ = ["make_phantom"]

logger = logging.getLogger(__name__)

_VERSION = 1  # raise it with every change of the pixels
_DESCRIPTION = "Generated frames of the six planes of FETAL_PLANES_DB: synthetic, for trying and testing, not clinical."


def make_phantom(
    folder: str | os.PathLike[str], train: int = 960, val: int = 240, test: int = 900, size: int = 64, seed: int = 0
) -> str:
    """Write a dataset of phantom frames, or find the same one already written.

    Every patient gives one frame of each plane and belongs to one split, so all splits are balanced and age, gain or
    probe tell nothing of the plane. The frames of a split depend on size and seed alone: a larger training split starts
    with the smaller one and leaves the test frames as they are.

    The folder gets ``images/*.png`` and, once these are complete, ``datalist.json``: a MONAI datalist with lists
    ``training``, ``validation`` and ``testing`` of ``{"image": path in the folder, "label": 0 to 5, "group": patient,
    "source": "phantom"}``, the class names under ``labels`` and the arguments of this function under ``phantom``.

    Several ranks call it together: the first writes, the others find what it has written.

    Args:
        folder: where to write. It must be empty, absent, or hold the phantom of the same arguments, which is kept.
        train: number of training frames, at least one of each plane.
        val: number of validation frames, likewise.
        test: number of test frames, likewise.
        size: side of a frame in pixels.
        seed: seed of the whole dataset.

    Returns:
        The path of the folder.

    Raises:
        ValueError: when a split is too small, or the folder holds anything else than this phantom.

    Example:
        >>> import tempfile
        >>> folder = make_phantom(tempfile.mkdtemp(), train=12, val=6, test=6, size=32)
        >>> content = json.loads((Path(folder) / "datalist.json").read_text())
        >>> content["training"][7]["label"], content["training"][7]["group"]
        (1, 'phantom-training-0001')
    """
    path = Path(folder)
    arguments = {"version": _VERSION, "train": train, "val": val, "test": test, "size": size, "seed": seed}
    with idist.one_rank_first():
        if not holds_generated(path, "phantom", arguments):
            _write(path, arguments)
    return str(path)


def _write(path: Path, arguments: dict[str, int]) -> None:
    splits = {"training": arguments["train"], "validation": arguments["val"], "testing": arguments["test"]}
    for split, count in splits.items():
        if count < len(PLANE_NAMES):
            raise ValueError(f"{count} {split} frames were asked for, but {len(PLANE_NAMES)} are one of each plane.")

    datalist: dict[str, Any] = {
        "name": "Fetal plane phantom",
        "description": _DESCRIPTION,
        "labels": {str(label): name for label, name in enumerate(PLANE_NAMES)},
        "phantom": arguments,
        "provenance": {"made_by": f"monai_fetalkd {__version__}"},  # so its groups are taken for pseudonyms
    }
    logger.info("phantom: %d frames are generated in '%s'", sum(splits.values()), path)
    with folder_written_whole(path) as part:  # so that a killed run can simply be started again
        (part / "images").mkdir()
        for number, (split, count) in enumerate(splits.items()):
            seeds = [arguments["seed"], number]
            datalist[split] = [_write_frame(part, split, seeds, index, arguments["size"]) for index in range(count)]
        (part / "datalist.json").write_text(json.dumps(datalist, indent=1), encoding="utf-8")


def _write_frame(path: Path, split: str, seeds: list[int], index: int, size: int) -> dict[str, str | int]:
    patient_number, plane = divmod(index, len(PLANE_NAMES))
    patient = Patient.draw(np.random.default_rng([*seeds, patient_number]))
    frame = phantom_frame(plane, np.random.default_rng([*seeds, patient_number, plane + 1]), size, patient)
    image = f"images/{split}-{patient_number:04d}-{plane}.png"
    Image.fromarray(frame).save(path / image)
    return {"image": image, "label": plane, "group": f"phantom-{split}-{patient_number:04d}", "source": "phantom"}
