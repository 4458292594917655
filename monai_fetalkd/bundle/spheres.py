"""Volumes of noisy spheres on disk, for trying and testing segmentation without data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from monai.data import create_test_image_3d
from monai.utils import optional_import

from monai_fetalkd.bundle.generated import holds_generated
from monai_fetalkd.utils.files import folder_written_whole

__all__ = ["SPHERE_NAMES", "make_spheres"]

SPHERE_NAMES = ("background", "dim", "middle", "bright")

_VERSION = 1  # raise it with every change of the voxels
_KIND = "sphere phantom"

nibabel, _ = optional_import("nibabel")


def make_spheres(
    folder: str | os.PathLike[str],
    train: int = 24,
    val: int = 8,
    test: int = 24,
    size: int = 24,
    noise: float = 0.8,
    seed: int = 0,
    unlabelled: int = 0,
) -> str:
    """Write a dataset of 3-D volumes with their segmentation, or find the same one already written.

    A volume is MONAI's :func:`monai.data.create_test_image_3d`: spheres of three levels that may hide each other, under
    noise from which no voxel can be told alone. They are drawings, and say nothing about patients.

    The folder gets ``volumes/*.nii.gz`` and, once these are complete, ``datalist.json``: a MONAI datalist with lists
    ``training``, ``validation`` and ``testing`` of ``{"image": path, "label": path}``, and, where asked for,
    ``unlabelled`` of ``{"image": path}``. Volumes of a split depend on size, noise and seed alone.

    Args:
        folder: where to write. It must be empty, absent, or hold the volumes of the same arguments, which are kept.
        train: number of training volumes.
        val: number of validation volumes.
        test: number of test volumes.
        size: side of a volume in voxels, at least 16.
        noise: the largest noise, in units of the brightest level.
        seed: seed of the whole dataset.
        unlabelled: number of volumes without a segmentation.

    Returns:
        The path of ``datalist.json``.

    Raises:
        ValueError: when a split is empty, the size too small, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> path = make_spheres(tempfile.mkdtemp(), train=1, val=1, test=1, size=16)
        >>> json.loads(Path(path).read_text())["training"]
        [{'image': 'volumes/training-000-image.nii.gz', 'label': 'volumes/training-000-label.nii.gz'}]
    """
    splits = {"training": train, "validation": val, "testing": test}
    if min(splits.values()) < 1 or unlabelled < 0 or size < 16:
        raise ValueError(f"One volume or more for each split, 16 voxels wide or more: got {splits} of size {size}.")
    if unlabelled:
        splits["unlabelled"] = unlabelled
    path = Path(folder)
    arguments = {"version": _VERSION, "train": train, "val": val, "test": test, "size": size, "seed": seed}
    arguments |= {"noise_permille": round(1000 * noise)} | ({"unlabelled": unlabelled} if unlabelled else {})
    if not holds_generated(path, _KIND, arguments):
        labels = {str(label): name for label, name in enumerate(SPHERE_NAMES)}
        with folder_written_whole(path) as part:  # so that a killed run can simply be started again
            (part / "volumes").mkdir()
            content = {
                split: [_write_volume(part, split, [seed, number, index], size, noise) for index in range(count)]
                for number, (split, count) in enumerate(splits.items())
            }
            text = json.dumps({"name": "Spheres in noise", "labels": labels, _KIND: arguments, **content}, indent=1)
            (part / "datalist.json").write_text(text, encoding="utf-8")
    return str(path / "datalist.json")


def _write_volume(folder: Path, split: str, seeds: list[int], size: int, noise: float) -> dict[str, str]:
    image, label = create_test_image_3d(
        size,
        size,
        size,
        num_objs=6,
        rad_max=size // 3,
        rad_min=max(2, size // 10),
        noise_max=noise,
        num_seg_classes=len(SPHERE_NAMES) - 1,
        random_state=np.random.RandomState(seeds),
    )
    row = {}
    volumes = {"image": image.astype(np.float32), "label": label.astype(np.uint8)}
    if split == "unlabelled":
        del volumes["label"]
    for key, voxels in volumes.items():
        row[key] = f"volumes/{split}-{seeds[-1]:03d}-{key}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / row[key])
    return row
