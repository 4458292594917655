from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
)
from torch import nn

from monai_fetalkd.losses import DistillationLoss
from monai_fetalkd.targets import SoftLabeld, SoftLabelTeacher
from monai_fetalkd.teachers import LiveTeacher, TeacherEnsemble

from .make import Pointwise, answered, crops, rows, trained


def test_small_probabilities_survive_at_any_temperature(tmp_path):
    network = Pointwise(2, scale=0.0)
    network.layer.bias.data = torch.tensor([0.0, -9.0, -40.0])
    loader = DataLoader(crops(tmp_path, 2))
    teacher = SoftLabelTeacher(network, tmp_path)
    trained(loader, teacher, Pointwise(2), epochs=1)
    logits = answered(teacher, next(iter(loader))).logits[0, :, 0, 0]
    assert logits[0] - logits[1] == pytest.approx(9.0, abs=0.05)
    assert 12 < logits[0] - logits[2] < 13


def test_probabilities_are_averaged_over_teachers_and_flips(tmp_path):
    networks = [UNet(2, 1, 3, (4, 8), (2,)), UNet(2, 1, 3, (4, 8), (2,))]
    ensemble = TeacherEnsemble(networks, weights=[3, 1])
    window = SlidingWindowInferer([8, 8], overlap=0.5, mode="gaussian")
    transform = Compose([SoftLabeld("image", tmp_path)])
    loader = DataLoader(Dataset(rows(2, count=1), transform), batch_size=1)
    teacher = SoftLabelTeacher(ensemble, tmp_path, inferer=window, flip_axes=[0, 1])
    trained(loader, teacher, Pointwise(2), epochs=1)
    batch = next(iter(loader))
    expected = 0
    with torch.no_grad():
        for network, weight in zip(networks, (0.75, 0.25), strict=True):
            network.eval()
            for axes in ((), (2,), (3,), (2, 3)):
                expected += weight / 4 * window(batch["image"].flip(axes), network).flip(axes).softmax(1)
    torch.testing.assert_close(answered(teacher, batch).logits.softmax(1), expected, atol=0.02, rtol=0)


def test_independent_classes_keep_their_logits(tmp_path):
    network = Pointwise(2)
    loader = DataLoader(Dataset(rows(2, 1), Compose([SoftLabeld("image", tmp_path)])))
    teacher = SoftLabelTeacher(network, tmp_path, sigmoid=True)
    label_loss = nn.BCEWithLogitsLoss()
    trained(loader, teacher, Pointwise(2), loss_function=DistillationLoss(ce_weight=0, label_loss=label_loss))
    batch = next(iter(loader))
    assert (answered(teacher, batch).logits - network(batch["image"])).abs().max() < 0.06


def test_an_interrupted_run_writes_what_is_missing(tmp_path):
    network = Pointwise(2)
    loader = DataLoader(crops(tmp_path, 2), batch_size=1)
    trained(loader, SoftLabelTeacher(network, tmp_path), Pointwise(2), epochs=1)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.npy")}
    next(iter(files)).unlink()
    trained(loader, SoftLabelTeacher(network, tmp_path), Pointwise(2), epochs=1)
    assert network._asked == 3 + 1
    assert files == {path: path.read_bytes() for path in tmp_path.glob("*.npy")}


class Killed(Pointwise):
    """Ends its process once two volumes are written. The environment says so: its own values are its identity."""

    def forward(self, inputs):
        if os.environ["KILL"] == "yes" and len(os.listdir(os.environ["SOFT_LABELS"])) == 3:  # the manifest too
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)


def _write_all(folder, kill, asked):
    os.environ.update(KILL=kill, SOFT_LABELS=str(folder))
    network = Killed(2)
    trained(DataLoader(crops(folder, 2)), SoftLabelTeacher(network, folder), Pointwise(2))
    asked.put(network._asked)


def test_a_run_that_was_killed_in_the_middle_goes_on(tmp_path, processes):
    asked = processes.Queue()
    killed, resumed = (processes.Process(target=_write_all, args=(tmp_path, kill, asked)) for kill in ("yes", "no"))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    resumed.start()
    assert asked.get(timeout=60) == 1
    resumed.join()
    assert len(list(tmp_path.iterdir())) == 1 + 3


def test_ranks_share_the_volumes(tmp_path, in_ranks):
    folder = tmp_path / "soft"

    def one_rank():
        network = Pointwise(2)
        SoftLabelTeacher(network, folder).start(DataLoader(crops(folder, 2)), torch.device("cpu"))
        return network._asked, len(list(folder.glob("*.npy")))

    assert in_ranks(one_rank) == [(2, 3), (1, 3)]


def test_a_disk_that_fills_leaves_no_half_file(tmp_path, monkeypatch):
    saved = []

    def save(file, array):
        if saved:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(1)
        np.lib.format.write_array(file, array)

    loader = DataLoader(crops(tmp_path, 2), batch_size=1)
    with monkeypatch.context() as full:
        full.setattr(np, "save", save)
        with pytest.raises(OSError, match=r"No space left.*\.npy"):
            trained(loader, SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2), epochs=1)
    assert len(list(tmp_path.iterdir())) == 2  # one whole file and the manifest
    trained(loader, SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2), epochs=1)
    assert len(list(tmp_path.glob("*.npy"))) == 3


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=600)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="3 volumes"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2))
    assert not list(tmp_path.glob("*.npy"))


def test_the_disk_use_is_told(tmp_path, caplog):
    caplog.set_level("INFO")
    trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2), epochs=1)
    assert "3 volumes: 0.0 MB" in caplog.text


@pytest.mark.parametrize(
    "other",
    [
        lambda network, folder: SoftLabelTeacher(Pointwise(2, scale=3.0), folder),
        lambda network, folder: SoftLabelTeacher(network, folder, flip_axes=[0]),
        lambda network, folder: SoftLabelTeacher(network, folder, sigmoid=True),
        lambda network, folder: SoftLabelTeacher(network, folder, SlidingWindowInferer([4, 4])),
        lambda network, folder: SoftLabelTeacher(LiveTeacher(network, mean=0.5), folder),
        lambda network, folder: SoftLabelTeacher(LiveTeacher(network, inferer=SlidingWindowInferer([4, 4])), folder),
    ],
    ids=["weights", "flips", "sigmoid", "inferer", "settings", "own inferer"],
)
def test_the_folder_of_another_teacher_is_refused(tmp_path, other):
    loader, network = DataLoader(crops(tmp_path, 2)), Pointwise(2)
    trained(loader, SoftLabelTeacher(network, tmp_path), Pointwise(2), epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="another teacher"):
        trained(loader, other(network, tmp_path), Pointwise(2), epochs=1)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_folder_of_other_files_is_refused(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros(3))
    with pytest.raises(ValueError, match=tmp_path.name):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2))


@pytest.mark.parametrize("axes", [[-1], [0, 0], [2]])
def test_axes_that_a_volume_does_not_have_are_refused(tmp_path, axes):
    with pytest.raises(ValueError, match="flip_axes"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path, flip_axes=axes), Pointwise(2))


def test_a_teacher_of_nan_is_refused(tmp_path):
    network = Pointwise(2)
    network.layer.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(network, tmp_path), Pointwise(2))


def test_the_manifest_tells_whose_soft_labels_they_are(tmp_path):
    trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2), epochs=1)
    assert json.loads((Path(tmp_path) / "manifest.json").read_text())["teacher"] == "Pointwise"
