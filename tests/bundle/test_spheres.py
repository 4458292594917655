from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_fetalkd.bundle.spheres import SPHERE_NAMES, make_spheres

SMALL = {"train": 2, "val": 1, "test": 1, "size": 16}


def voxels(folder):
    return {path.name: np.asarray(nibabel.load(path).dataobj) for path in sorted((folder / "volumes").iterdir())}


def test_volumes_have_a_segmentation_in_the_numbers_of_the_class_table(tmp_path):
    datalist = Path(make_spheres(tmp_path / "a", **SMALL))
    content = json.loads(datalist.read_text())
    assert {name: len(content[name]) for name in ("training", "validation", "testing")} == {
        "training": 2,
        "validation": 1,
        "testing": 1,
    }
    assert tuple(content["labels"].values()) == SPHERE_NAMES
    for row in content["training"]:
        image, label = (np.asarray(nibabel.load(datalist.parent / row[key]).dataobj) for key in ("image", "label"))
        assert image.shape == label.shape == (16, 16, 16)
        assert set(np.unique(label)) <= {0, 1, 2, 3}


def test_the_same_arguments_give_the_same_volumes_and_another_seed_others(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        make_spheres(folder, **SMALL, seed=seed)
    first, second, other = map(voxels, folders)
    assert all(np.array_equal(value, second[name]) for name, value in first.items())
    assert not all(np.array_equal(value, other[name]) for name, value in first.items())


def test_volumes_that_are_there_are_kept(tmp_path):
    make_spheres(tmp_path / "a", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    make_spheres(tmp_path / "a", **SMALL)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == before


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda folder: make_spheres(folder, **SMALL), {"seed": 5}, "holds a sphere phantom made with"),
        (lambda folder: (folder.mkdir(), (folder / "thesis.txt").touch()), {}, "holds no complete sphere phantom"),
        (lambda folder: None, {"val": 0}, "One volume or more for each split"),
        (lambda folder: None, {"size": 8}, "16 voxels wide or more"),
    ],
)
def test_a_folder_of_other_content_and_bad_sizes_are_refused(tmp_path, prepare, arguments, message):
    prepare(tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        make_spheres(tmp_path / "a", **{**SMALL, **arguments})
