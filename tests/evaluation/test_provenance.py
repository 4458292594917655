from __future__ import annotations

import subprocess

import pytest
import torch

from monai_fetalkd.evaluation.provenance import git_commit, hash_of_datalist, provenance
from monai_fetalkd.ultrasound.data.datalist import Datalist


@pytest.fixture
def datalist(tmp_path):
    def build(folder="here", group="p1", label=0, pixels=b"1234"):
        (tmp_path / folder).mkdir(exist_ok=True)
        image = tmp_path / folder / "a.png"
        image.write_bytes(pixels)
        return Datalist(
            str(tmp_path), ["brain", "other"], {"testing": [{"image": str(image), "label": label, "group": group}]}
        )

    return build


def test_the_hash_is_of_the_frames_and_not_of_their_folder_or_pseudonyms(datalist):
    assert hash_of_datalist(datalist()) == hash_of_datalist(datalist(folder="there", group="p2"))


@pytest.mark.parametrize("change", [{"label": 1}, {"pixels": b"12345"}])
def test_other_labels_or_files_have_another_hash(datalist, change):
    assert hash_of_datalist(datalist()) != hash_of_datalist(datalist(**change))


def test_it_tells_data_seed_versions_and_command(datalist):
    about = provenance(datalist(), seed=7, precision="float32")
    assert (about["seed"], about["precision"], about["torch"]) == (7, "float32", torch.__version__)
    assert "pytest" in about["command"]


def test_the_commit_is_that_of_a_checkout_and_tells_changes(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    assert git_commit(package) is None

    def git(*command):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (package / "module.py").write_text("one")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert git_commit(package) == git("rev-parse", "HEAD")
    (package / "module.py").write_text("two")
    assert git_commit(package) == f"{git('rev-parse', 'HEAD')} with changes"
