from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambda, RandAffined, RandFlipd

from monai_fetalkd.utils.hashing import hash_of_code, hash_of_data, hash_of_transforms


def test_equal_values_have_equal_hashes_whatever_objects_they_share():
    name = "a name"
    apart = "".join(["a ", "name"])
    assert hash_of_data([{"a": name, "b": name}]) == hash_of_data([{"b": apart, "a": name}])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, [2]], [[1], 2]),
        (["ab", "c"], ["a", "bc"]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (np.zeros(2), np.array([0, 1e-9])),
        (1, "1"),
        (None, False),
    ],
)
def test_unequal_values_have_unequal_hashes(one, other):
    assert hash_of_data(one) != hash_of_data(other)


def test_a_tensor_counts_by_its_values_alone():
    values = torch.arange(6.0).reshape(2, 3)
    assert hash_of_data(values) == hash_of_data(MetaTensor(values.T.contiguous().T).requires_grad_())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with files and folders of the names in a row."""
    monkeypatch.chdir(tmp_path)
    for name in ("label", "brain", "group"):
        (tmp_path / name).mkdir()
    (tmp_path / "p1").write_text("a file of this name")
    (tmp_path / "frame.png").write_text("short")
    return tmp_path


def test_a_hash_does_not_depend_on_the_working_directory(folder, tmp_path_factory, monkeypatch):
    row = {"image": torch.zeros(1), "label": "brain", "group": "p1", "frame.png": "frame.png"}
    here = hash_of_data([row], path_keys=["image"])
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert hash_of_data([row], path_keys=["image"]) == here


@pytest.mark.parametrize("as_path", [str, Path])
@pytest.mark.parametrize("rows", [lambda path: [{"image": path}], lambda path: {"image": [path, path]}])
@pytest.mark.parametrize("change", [lambda path: path.write_text("longer"), lambda path: os.utime(path, ns=(1, 1))])
def test_a_path_under_a_path_key_stands_for_the_file(folder, as_path, rows, change):
    path = folder / "frame.png"
    value = rows(as_path(path))
    before = hash_of_data(value, path_keys=["image"]), hash_of_data(value)
    change(path)
    assert before[0] != hash_of_data(value, path_keys=["image"])
    assert before[1] == hash_of_data(value)


def test_a_relative_path_is_that_of_the_same_file_from_any_directory(folder, monkeypatch):
    hashes = []
    for directory, path in ((".", "frame.png"), ("label", "../frame.png"), (".", str(folder / "frame.png"))):
        monkeypatch.chdir(folder / directory)
        hashes.append(hash_of_data({"image": path}, path_keys=["image"]))
    assert len(set(hashes)) == 1


@pytest.mark.parametrize("path", ["s3://bucket/frame.png", "no such file", "a\0b", "b\udcff"])
def test_a_path_to_no_file_here_is_hashed_by_its_name(path, folder, monkeypatch):
    here = hash_of_data({"image": path}, path_keys=["image"])
    assert here == hash_of_data({"image": path})
    monkeypatch.chdir(folder / "label")
    assert here == hash_of_data({"image": path}, path_keys=["image"])


@pytest.mark.parametrize("transform", [RandFlipd, RandAffined])  # the second holds tensors
def test_transforms_count_with_their_settings(transform):
    assert hash_of_transforms([transform("image", prob=0.5)]) == hash_of_transforms([transform("image", prob=0.5)])
    assert hash_of_transforms([transform("image", prob=0.5)]) != hash_of_transforms([transform("image", prob=0.6)])


@pytest.mark.parametrize("hashed", [hash_of_transforms, hash_of_data])
def test_what_cannot_be_pickled_is_refused(hashed):
    with pytest.raises(ValueError, match="cannot be pickled"):
        hashed([Compose([Lambda(lambda image: image)])])


FILES = {
    "lab/__init__.py": "from lab import unused, scale, transforms\n",
    "lab/transforms.py": "from .scale import factor\nclass Brighten:\n    def __init__(self, by):\n"
    "        self.by = by\n    def __call__(self, x):\n        import helper\n        return factor(x)\n",
    "lab/scale.py": "import lab.deep.constants as constants\ndef factor(x):\n    return x * constants.SCALE\n",
    "lab/deep/__init__.py": "",
    "lab/deep/constants.py": "import math\nSCALE = 2\ndef never():\n    import lab.transforms, not_installed\n",
    "lab/unused.py": "OTHER = 1\n",
    "helper.py": "HELP = 1\n",
    "stranger.py": "HELP = 1\n",
}


class TestHashOfCode:
    @pytest.fixture
    def project(self, tmp_path):
        for name, text in FILES.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    @staticmethod
    def hashes(project, monkeypatch):
        """Of the project as it is on disk now."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("lab", "helper", "stranger")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(project)
        from lab.transforms import Brighten

        return hash_of_code([Brighten]), hash_of_code([Brighten(2)]), hash_of_transforms([Brighten(2)])

    @pytest.mark.parametrize("name", ["lab/transforms.py", "lab/scale.py", "lab/deep/constants.py", "helper.py"])
    def test_an_edit_of_code_that_is_used_counts(self, project, monkeypatch, name):
        before = self.hashes(project, monkeypatch)
        with (project / name).open("a") as file:
            file.write("# another comment\n")
        assert not set(before) & set(self.hashes(project, monkeypatch))

    @pytest.mark.parametrize("name", ["lab/__init__.py", "lab/unused.py", "stranger.py"])
    def test_an_edit_elsewhere_does_not(self, project, monkeypatch, name):
        before = self.hashes(project, monkeypatch)
        with (project / name).open("a") as file:
            file.write("# another comment\n")
        assert before == self.hashes(project, monkeypatch)

    def test_the_place_of_the_project_does_not_count(self, project, monkeypatch):
        before = self.hashes(project, monkeypatch)
        moved = project / "moved"
        moved.mkdir()
        for name in FILES:
            (moved / name).parent.mkdir(exist_ok=True, parents=True)
            (project / name).rename(moved / name)
        assert self.hashes(moved, monkeypatch) == before

    def test_nothing_is_imported_to_find_it(self, project, monkeypatch):
        (project / "helper.py").write_text("raise RuntimeError\n")
        self.hashes(project, monkeypatch)

    def test_an_installed_package_counts_with_its_version(self, monkeypatch):
        before = hash_of_code([RandFlipd])
        assert before == hash_of_code([RandAffined]) != hash_of_code([np.ndarray])

    def test_modules_of_a_network_count_by_their_classes(self, project, monkeypatch):
        network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        assert hash_of_code(network.modules()) == hash_of_code([torch.nn.Linear])

    def test_scripted_modules_count_by_their_generated_code(self):
        class Doubled(torch.nn.Module):
            def forward(self, x):
                return 2 * x

        class Tripled(torch.nn.Module):
            def forward(self, x):
                return 3 * x

        traced = [torch.fx.symbolic_trace(module()) for module in (Doubled, Doubled, Tripled)]
        assert hash_of_code([traced[0]]) == hash_of_code([traced[1]]) != hash_of_code([traced[2]])


NOTEBOOK = """
SCALE = {scale}
def helper(x):
    return x * SCALE if "a" in {{"a", "b", "c"}} else {helped}
class Brighten:
    LIMIT = {limit}
    @staticmethod
    def limited(x):
        return min(x, {inner})
    def __call__(self, x):
        return (lambda y: helper(y))(x)
def alone(x):
    return x
epochs = {epochs}
"""
PLAIN = {"scale": 1, "helped": 2, "limit": 3, "inner": 4, "epochs": 5}


class TestCodeOfMain:
    @pytest.fixture
    def run(self, monkeypatch):
        def hashed(file, **changes):
            main = ModuleType("__main__")
            monkeypatch.setitem(sys.modules, "__main__", main)
            exec(compile(NOTEBOOK.format(**{**PLAIN, **changes}), file, "exec"), main.__dict__)
            return hash_of_transforms([main.Brighten(), main.alone])

        return hashed

    def test_a_script_and_a_notebook_count_by_what_they_use(self, run):
        before = run("script.py")
        assert before == run("ipykernel_7/1.py") == run("<stdin>", epochs=6)
        changed = {run("script.py", **{name: 100}) for name in ("scale", "helped", "limit", "inner")}
        assert len(changed | {before}) == 5
