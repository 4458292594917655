"""The job of three sites in NVFlare's simulator, as its user starts it. Asked for with -m federated."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch

from monai_fetalkd.networks import student_resnet
from monai_fetalkd.ultrasound.data import make_phantom
from monai_fetalkd.utils.checkpoints import load_weights

pytestmark = pytest.mark.federated
NETWORK = {"_target_": "monai_fetalkd.networks.student_resnet", "layers": [1, 1, 1, 1]}
TINY = {
    "image_size": [32, 32],
    "layers": ["layer1", "layer2", "layer3"],
    "batch_size": 6,
    "num_workers": 0,
    "network_def": {**NETWORK, "width": 2},
    "teacher#network_def": {**NETWORK, "width": 4},
}


@pytest.fixture
def sites(tmp_path):
    """Three sites, each with frames and a teacher of its own."""
    for number in range(3):
        folder = tmp_path / "sites" / f"site-{number + 1}"
        make_phantom(folder, train=12, val=6, test=6, size=32, seed=number)
        torch.manual_seed(number)
        torch.save(student_resnet(4, (1, 1, 1, 1), num_classes=6).state_dict(), folder / "teacher.pt")
    return tmp_path / "sites"


@pytest.fixture
def job(project_dir, sites, tmp_path):
    def start(*options):
        line = [sys.executable, str(project_dir / "bundle" / "federated" / "job.py"), "--sites", str(sites)]
        line += ["--workspace", str(tmp_path / "work"), "--rounds", "2", *options]
        line += ["--set", *(f"{name}={json.dumps(value)}" for name, value in TINY.items())]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    return start


def test_three_sites_distil_one_student_and_keep_frames_and_teachers(job, sites, tmp_path):
    teachers = {path: path.read_bytes() for path in sites.glob("*/teacher.pt")}
    done = job()
    assert done.returncode == 0, done.stdout + done.stderr
    student = student_resnet(2, (1, 1, 1, 1), num_classes=6)
    load_weights(student, tmp_path / "work" / "model.pt")
    torch.manual_seed(0)
    assert not torch.equal(student.conv1.weight, student_resnet(2, (1, 1, 1, 1), num_classes=6).conv1.weight)
    assert {path: path.read_bytes() for path in teachers} == teachers
    for site in sites.iterdir():
        assert "stage 2, distillation  epoch 2/2" in (site / "federated" / "eval" / "log.txt").read_text()
    # what the server has seen: weights and scores, no frame and no teacher
    server = [path.name for path in (tmp_path / "work" / "distillation" / "server").rglob("*")]
    assert not [name for name in server if name.endswith(".png") or name == "teacher.pt"]


def _no_teacher(sites):
    (sites / "site-2" / "teacher.pt").unlink()


def _other_classes(sites):
    path = sites / "site-3" / "datalist.json"
    content = json.loads(path.read_text())
    content["labels"]["0"], content["labels"]["1"] = content["labels"]["1"], content["labels"]["0"]
    path.write_text(json.dumps(content))


def _missing_frame(sites):
    next((sites / "site-1" / "images").iterdir()).unlink()


def _one_site(sites):
    for number in (2, 3):
        (sites / f"site-{number}").rename(sites.parent / f"site-{number}")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_no_teacher, r"The site 'site-2' cannot join: The checkpoint '.*teacher.pt' does not exist"),
        (_other_classes, r"The site 'site-3' cannot join: The classes of '.*' .* are not those asked for"),
        (_missing_frame, r"The site 'site-1' cannot join: 1 of the 24 frames .* have no image"),
        (_one_site, r"holds 1 sites, but a federation needs two"),
    ],
)
def test_a_site_that_cannot_join_is_named_before_anything_starts(job, sites, tmp_path, spoil, told):
    spoil(sites)
    done = job()
    assert done.returncode == 1
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(told, sentence), sentence
    assert not (tmp_path / "work").exists()


def test_the_job_is_exported_for_a_server_with_all_that_a_site_runs(job, tmp_path):
    assert job("--job_dir", str(tmp_path / "job")).returncode == 0
    exported = {path.name for path in (tmp_path / "job").rglob("*")}
    assert {"meta.json", "client.py", "train.json", "federated.json", "settings.json", "initial.pt"} <= exported
    assert not (tmp_path / "work").exists()
