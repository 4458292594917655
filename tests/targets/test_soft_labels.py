from __future__ import annotations

import itertools
import shutil

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

from monai_fetalkd.losses import DistillationLoss, FeatureLoss, SoftTargetLoss
from monai_fetalkd.targets import SoftLabeld, SoftLabelTeacher, with_soft_labels
from monai_fetalkd.teachers import LiveTeacher

from .make import KEYS, Pointwise, answered, crops, rows, trained


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


def test_other_classes_than_the_students_are_refused(tmp_path):
    with pytest.raises(ValueError, match="4, 8, 8.*3, 8, 8|3, 8, 8.*4, 8, 8"):
        trained(DataLoader(crops(tmp_path, 2)), SoftLabelTeacher(Pointwise(2, classes=4), tmp_path), Pointwise(2))


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
