from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureTyped,
    MapTransform,
    RandAffined,
    RandFlipd,
    RandRotate90d,
    RandScaleIntensityd,
    RandSpatialCropd,
    ScaleIntensityd,
    SpatialPadd,
)
from torch import nn

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.losses import DistillationLoss, FeatureLoss, SoftTargetLoss
from monai_fetalkd.targets import SoftLabeld, SoftLabelTeacher, with_soft_labels
from monai_fetalkd.teachers import LiveTeacher, Query, TeacherEnsemble

KEYS = ["image", "label", "soft_label"]


class Pointwise(nn.Module):
    """Looks at each voxel alone, so that its output moves with the voxel under crops and flips."""

    def __init__(self, dims: int, classes: int = 3, scale: float = 4.0) -> None:
        super().__init__()
        torch.manual_seed(classes)
        self.layer = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, classes, 1)
        self.layer.weight.data *= scale
        self._asked = 0

    def forward(self, inputs):
        self._asked += 1
        return self.layer(inputs)


def rows(dims: int, count: int = 3, size: int = 12) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, *[size + index] * dims) for index in range(count)]
    return [{"image": torch.rand(shape, generator=generator), "label": torch.zeros(shape)} for shape in shapes]


def trained(loader, teacher, student, epochs=2, seen=None, **more):
    trainer = DistillationTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        decollate=False,
        **more,
    )
    trainer.run()
    return trainer


def answered(teacher, batch):
    """What a teacher says of a batch."""
    query = Query(batch["image"], batch, lambda x, network: network(x), (), {}, True, {}, {}, dict, None)
    return teacher.targets(query)


def crops(folder, dims, random=(), data=None, kind=Dataset):
    crop = RandSpatialCropd(KEYS, [8] * dims, random_size=False)
    transform = Compose([ScaleIntensityd("image"), SoftLabeld("image", folder), *random, crop])
    return kind(rows(dims) if data is None else data, transform)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["Dataset", "CacheDataset", "PersistentDataset"])
def test_crops_carry_what_the_teacher_says_of_them(tmp_path, dims, kind):
    make = {
        "Dataset": Dataset,
        "CacheDataset": lambda data, transform: CacheDataset(data, transform, progress=False),
        "PersistentDataset": lambda data, transform: PersistentDataset(data, transform, tmp_path / "cache"),
    }[kind]
    moved = [RandFlipd(KEYS, prob=0.5, spatial_axis=0), RandRotate90d(KEYS, prob=0.5)]
    network, folder = Pointwise(dims), tmp_path / "soft"
    loader = DataLoader(crops(folder, dims, moved, kind=make), batch_size=1)
    teacher = SoftLabelTeacher(network, folder)
    trained(loader, teacher, Pointwise(dims), epochs=3)
    assert network._asked == 3  # once a volume, however many crops
    for batch in itertools.chain(loader, loader):
        batch = {key: value.as_tensor() if hasattr(value, "as_tensor") else value for key, value in batch.items()}
        stored = answered(teacher, batch)
        live = network(batch["image"]).log_softmax(1)
        assert stored.mask is None
        assert (stored.logits.log_softmax(1) - live).abs().max() < 0.06
        assert batch["soft_label"].dtype == torch.uint8
    arrays = [np.load(path) for path in folder.glob("*.npy")]
    assert sorted(array.shape for array in arrays) == [(3, *[12 + index] * dims) for index in range(3)]


def test_training_from_soft_labels_is_training_under_the_live_teacher(tmp_path):
    network, students = Pointwise(3), [Pointwise(3, scale=1.0), Pointwise(3, scale=1.0)]
    losses = []
    for student, teacher in zip(students, (LiveTeacher(network), SoftLabelTeacher(network, tmp_path)), strict=True):
        data = DataLoader(crops(tmp_path, 3), batch_size=1) if losses else None
        if data is None:
            plain_crop = RandSpatialCropd(KEYS[:2], [8] * 3, random_size=False)
            data = DataLoader(Dataset(rows(3), Compose([ScaleIntensityd("image"), plain_crop])), batch_size=1)
        data.dataset.transform.set_random_state(0)
        losses.append(trained(data, teacher, student, loss_function=DistillationLoss(temperature=4.0)).state.output)
    torch.testing.assert_close(losses[0]["kd"], losses[1]["kd"], rtol=0.02, atol=1e-4)
    torch.testing.assert_close(students[0].layer.weight, students[1].layer.weight, rtol=1e-2, atol=1e-3)


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


def test_padding_teaches_nothing(tmp_path):
    pad = SpatialPadd(KEYS, [16, 16])
    turn = RandAffined(KEYS, prob=1.0, rotate_range=0.5, mode=["bilinear", "nearest", "bilinear"], padding_mode="zeros")
    transform = Compose([SoftLabeld("image", tmp_path), pad, turn])
    loader = DataLoader(Dataset(rows(2, 1), transform))
    teacher, student = SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2)
    trained(loader, teacher, student, epochs=1, loss_function=DistillationLoss(ce_weight=0))
    targets = answered(teacher, next(iter(loader)))
    assert 100 < int(targets.mask.sum()) < 200  # 12 x 12 of 16 x 16 pixels, turned
    assert not targets.mask[0, 0, 0]
    logits = student(torch.rand(1, 1, 16, 16))
    counted = SoftTargetLoss()(logits, targets.logits, mask=targets.mask)
    changed = targets.logits.where(targets.mask.unsqueeze(1), 7 * torch.rand(targets.logits.shape))
    assert counted == SoftTargetLoss()(logits, changed, mask=targets.mask)


def test_a_mask_of_the_batch_and_that_of_the_padding_both_count(tmp_path):
    data = [{**row, "inside": (row["image"] > 0.5)} for row in rows(2, 1)]
    keys = [*KEYS, "inside"]
    loader = DataLoader(Dataset(data, Compose([SoftLabeld("image", tmp_path), SpatialPadd(keys, [16, 16])])))
    teacher, student = SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2)
    loss = DistillationLoss(ce_weight=0)
    seen = []
    loss.soft_target_loss.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["mask"]), with_kwargs=True
    )
    trained(loader, teacher, student, epochs=1, loss_function=loss, mask_key="inside")
    assert int(seen[0].sum()) == int((data[0]["image"] > 0.5).sum())


def test_hidden_layers_are_asked_live(tmp_path):
    network, student = UNet(2, 1, 3, (4, 8), (2,)), UNet(2, 1, 3, (4, 8), (2,))
    loss = DistillationLoss(feature_losses={"mse": FeatureLoss(nn.MSELoss())})
    loader = DataLoader(crops(tmp_path, 2), batch_size=1)
    with pytest.raises(ValueError, match="inferer"):  # 13 pixels become 14
        trained(loader, SoftLabelTeacher(network, tmp_path), student)
    shutil.rmtree(tmp_path)
    teacher = SoftLabelTeacher(network, tmp_path, SlidingWindowInferer([8, 8]))
    trainer = trained(loader, teacher, student, loss_function=loss, student_layers=["model.0"])
    assert trainer.state.output["mse"] > 0


def test_an_interrupted_run_writes_what_is_missing(tmp_path):
    network = Pointwise(2)
    loader = DataLoader(crops(tmp_path, 2), batch_size=1)
    trained(loader, SoftLabelTeacher(network, tmp_path), Pointwise(2), epochs=1)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.npy")}
    next(iter(files)).unlink()
    trained(loader, SoftLabelTeacher(network, tmp_path), Pointwise(2), epochs=1)
    assert network._asked == 3 + 1
    assert files == {path: path.read_bytes() for path in tmp_path.glob("*.npy")}


@pytest.mark.slow  # two processes that import torch
def test_a_run_that_was_killed_in_the_middle_goes_on(tmp_path, project_dir):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_soft_labels as tests
from monai_fetalkd.targets import SoftLabelTeacher

class Killed(tests.Pointwise):
    def forward(self, inputs):
        if len(list(os.scandir({str(tmp_path)!r}))) == 3 and sys.argv[1] == "kill":  # a manifest and two volumes
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)

network = Killed(2)
loader = tests.DataLoader(tests.crops({str(tmp_path)!r}, 2))
tests.trained(loader, SoftLabelTeacher(network, {str(tmp_path)!r}), tests.Pointwise(2))
print("asked", network._asked)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(project_dir)}
    file = tmp_path.parent / f"{tmp_path.name}.py"  # one file, so that both runs have one code
    file.write_text(script)
    killed, resumed = (
        subprocess.run(
            [sys.executable, str(file), action], env=environment, capture_output=True, text=True, check=False
        )
        for action in ("kill", "resume")
    )
    assert killed.returncode == -signal.SIGKILL
    assert "asked 1" in resumed.stdout, resumed.stderr[-500:]
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


def test_other_classes_than_the_students_are_refused(tmp_path):
    with pytest.raises(ValueError, match="4, 8, 8.*3, 8, 8|3, 8, 8.*4, 8, 8"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2, classes=4), tmp_path), Pointwise(2))


def test_a_folder_of_other_files_is_refused(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros(3))
    with pytest.raises(ValueError, match=tmp_path.name):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2))


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_soft_label_is_named(tmp_path, damage):
    loader = DataLoader(crops(tmp_path, 2))
    trained(loader, SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2), epochs=1)
    for path in tmp_path.glob("*.npy"):
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:140])
        else:
            np.save(path, np.zeros((3, 5, 5), np.uint8))
    with pytest.raises(RuntimeError) as caught:
        next(iter(loader))
    assert any(path.name in str(caught.value.__cause__) for path in tmp_path.glob("*.npy"))


def test_a_volume_without_a_soft_label_is_named(tmp_path):
    with pytest.raises(RuntimeError) as caught:
        crops(tmp_path, 2)[0]
    assert "SoftLabelTeacher" in str(caught.value.__cause__)


class Wrong(MapTransform):
    def __call__(self, data):
        return [data]


@pytest.mark.parametrize(
    ("transforms", "named"),
    [
        ([], "SoftLabeld"),
        ([RandScaleIntensityd("image", 0.1), "soft"], "RandScaleIntensityd"),
        (["soft", RandFlipd(["image", "label"])], "RandFlipd"),
        (["soft", Compose([RandAffined(["image", "label"])])], "RandAffined"),
        ([Wrong("image"), "soft"], "list"),
        (["elsewhere"], "another_folder"),
    ],
)
def test_transforms_that_do_not_fit_are_refused_before_the_first_step(tmp_path, transforms, named):
    stand_ins = {"soft": SoftLabeld("image", tmp_path), "elsewhere": SoftLabeld("image", "another_folder")}
    chain = Compose([stand_ins.get(each, each) if isinstance(each, str) else each for each in transforms])
    with pytest.raises(ValueError, match=named):
        trained(DataLoader(Dataset(rows(2), chain)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2))
    assert not list(tmp_path.glob("*.npy"))


def test_a_batch_without_the_soft_label_or_of_another_size_is_refused(tmp_path):
    teacher = SoftLabelTeacher(Pointwise(2), tmp_path)
    with pytest.raises(ValueError, match="no 'soft_label'"):
        answered(teacher, {"image": torch.zeros(1, 1, 4, 4)})
    with pytest.raises(ValueError, match="spatial transform"):
        answered(teacher, {"image": torch.zeros(1, 1, 4, 4), "soft_label": torch.zeros(1, 3, 5, 5)})


@pytest.mark.parametrize("axes", [[-1], [0, 0], [2]])
def test_axes_that_a_volume_does_not_have_are_refused(tmp_path, axes):
    with pytest.raises(ValueError, match="flip_axes"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path, flip_axes=axes), Pointwise(2))


def test_a_teacher_of_nan_is_refused(tmp_path):
    network = Pointwise(2)
    network.layer.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(network, tmp_path), Pointwise(2))


def test_several_keys_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one key"):
        SoftLabeld(["image", "other"], tmp_path)


def test_stages_share_the_cache_of_one_dataset(tmp_path):
    loaded = []

    class Load(MapTransform):
        def __call__(self, data):
            loaded.append(1)
            return data

    crop = RandSpatialCropd(KEYS, [8, 8], random_size=False, allow_missing_keys=True)
    typed = EnsureTyped(KEYS, track_meta=False, allow_missing_keys=True)
    dataset = CacheDataset(rows(2), Compose([Load("image"), crop, typed]), progress=False)
    assert set(dataset[0]) == {"image", "label"}
    soft = with_soft_labels(dataset, tmp_path)
    trained(DataLoader(soft), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2))
    assert set(soft[0]) == set(KEYS)
    assert set(dataset[0]) == {"image", "label"}
    assert len(loaded) == 3
    with pytest.raises(TypeError, match="Compose"):
        with_soft_labels(rows(2), tmp_path)


def test_the_manifest_tells_whose_soft_labels_they_are(tmp_path):
    trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2), tmp_path), Pointwise(2), epochs=1)
    assert json.loads((Path(tmp_path) / "manifest.json").read_text())["teacher"] == "Pointwise"
