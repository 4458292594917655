from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader, Dataset
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.transforms import Compose, EnsureTyped, RandCropByPosNegLabeld, RandFlipd, SpatialPadd
from torch import nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import DistillationLoss, LabelLoss
from monai_fetalkd.networks import student_resnet
from monai_fetalkd.targets import FixedViews, TeacherTargets
from monai_fetalkd.unlabelled import (
    NO_LABEL,
    FillLabeld,
    MixedSampler,
    labelled_part,
    unlabelled_rows,
    with_optional_label,
)


def rows(labelled: int, unlabelled: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(labelled + unlabelled, 1, 32, 32, generator=generator)
    return [
        {"image": image, "index": index, **({"label": index % 3} if index < labelled else {})}
        for index, image in enumerate(images)
    ]


def batches(sampler, batch_size):
    drawn = list(sampler)
    return [drawn[start : start + batch_size] for start in range(0, len(drawn), batch_size)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("labelled", "unlabelled"), [(7, 12), (3, 50), (20, 1)])
@pytest.mark.parametrize(("batch_size", "share", "hidden"), [(4, 0.5, 2), (4, 0.25, 1), (5, 0.8, 4)])
def test_every_batch_of_every_rank_holds_both_kinds_in_proportion(
    ranks, labelled, unlabelled, batch_size, share, hidden
):
    dataset = Dataset(rows(labelled, unlabelled))
    samplers = [MixedSampler(dataset, batch_size, share, num_replicas=ranks, rank=rank) for rank in range(ranks)]
    shown = []
    for sampler in samplers:
        found = batches(sampler, batch_size)
        assert len(sampler) == batch_size * len(found) == batch_size * len(batches(samplers[0], batch_size))
        assert {sum(index >= labelled for index in batch) for batch in found} == {hidden}
        shown += [index for batch in found for index in batch]
    assert set(range(labelled)) <= set(shown)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_step_through_the_batches_of_one(ranks):
    dataset = Dataset(rows(7, 12))
    one = batches(MixedSampler(dataset, 4 * ranks, 0.5, seed=3), 4 * ranks)
    shares = [batches(MixedSampler(dataset, 4, 0.5, seed=3, num_replicas=ranks, rank=rank), 4) for rank in range(ranks)]
    for number, batch in enumerate(one):
        assert sorted(index for share in shares for index in share[number]) == sorted(batch)


@pytest.mark.parametrize("section", [None, [], ["a.nii", "sub/b.nii"]])
def test_rows_of_the_section_have_paths_from_the_folder_of_the_file(tmp_path, section):
    sections = {"training": [{"image": "c.nii", "label": "d.nii"}]}
    if section is not None:
        sections["unlabelled"] = [{"image": name} for name in section]
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(sections))
    assert unlabelled_rows(path) == [{"image": str(tmp_path / name)} for name in section or []]


def test_all_items_of_a_kind_are_shown_equally_often_over_the_epochs():
    sampler = MixedSampler(Dataset(rows(4, 10)), 4, 0.5)
    shown = Counter()
    for epoch in range(10):  # two batches of two unlabelled items each
        sampler.set_epoch(epoch)
        shown.update(sampler)
    assert {shown[index] for index in range(4)} == {10}
    assert {shown[index] for index in range(4, 14)} == {4}


def test_the_order_depends_on_seed_and_epoch_alone():
    first, same, other = (MixedSampler(Dataset(rows(8, 8)), 4, 0.5, seed=seed) for seed in (1, 1, 2))
    for sampler in (first, same, other):
        sampler.set_epoch(3)
    torch.rand(5)
    assert list(first) == list(same) != list(other)
    same.set_epoch(4)
    assert list(first) != list(same)


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "batch_size", "share", "named"),
    [
        (4, 4, 4, 0.0, "0"),
        (4, 4, 4, 1.0, "1"),
        (4, 4, 4, 0.1, "0.1"),
        (4, 4, 1, 0.5, "1"),
        (4, 0, 4, 0.5, "label"),
        (0, 4, 4, 0.5, "label"),
    ],
)
def test_batches_that_cannot_hold_both_kinds_are_refused(labelled, unlabelled, batch_size, share, named):
    with pytest.raises(ValueError, match=named):
        MixedSampler(Dataset(rows(labelled, unlabelled)), batch_size, share)


def test_what_has_no_rows_is_refused():
    with pytest.raises(TypeError, match="list"):
        labelled_part([{"image": 0}])


def test_the_labelled_part_is_the_dataset_itself_where_all_have_a_label():
    dataset = Dataset(rows(3, 0))
    assert labelled_part(dataset) is dataset
    assert [item["index"] for item in labelled_part(Dataset(rows(3, 2)))] == [0, 1, 2]


@pytest.mark.parametrize(
    ("image_key", "channels", "shape"), [(None, 4, (4,)), ("image", None, (5, 6)), ("image", 2, (2, 5, 6))]
)
def test_a_filled_label_has_the_shape_and_type_of_the_others(image_key, channels, shape):
    fill = FillLabeld("label", image_key, channels, torch.int64)
    label = fill({"image": torch.zeros(3, 5, 6)})["label"]
    assert (tuple(label.shape), label.dtype, label.unique().tolist()) == (shape, torch.int64, [NO_LABEL])
    assert fill({"image": torch.zeros(3, 5, 6), "label": 7})["label"] == 7


def test_padding_is_no_label_of_an_unlabelled_volume():
    both = ["image", "label"]
    given = Compose([SpatialPadd(both, (6, 6)), RandFlipd(both, prob=1.0)])
    transform = with_optional_label(given, FillLabeld("label", "image", channels=1))
    assert transform({"image": torch.ones(1, 4, 4)})["label"].unique().tolist() == [NO_LABEL]
    labelled = transform({"image": torch.ones(1, 4, 4), "label": torch.ones(1, 4, 4)})["label"]
    assert labelled.unique().tolist() == [0, 1]
    with pytest.raises(RuntimeError):  # the given transforms are as strict as before
        given({"image": torch.ones(1, 4, 4)})


@pytest.mark.parametrize("track_meta", [False, True])
def test_filled_labels_are_collated_with_the_others(track_meta):
    both = ["image", "label"]
    given = Compose([RandFlipd(both, prob=1.0), EnsureTyped(both, track_meta=track_meta)])
    data = [{"image": torch.rand(1, 4, 4), "label": torch.ones(1, 4, 4)}, {"image": torch.rand(1, 4, 4)}]
    dataset = Dataset(data, with_optional_label(given, FillLabeld("label", "image", channels=1)))
    label = next(iter(DataLoader(dataset, batch_size=2)))["label"]
    assert label.flatten(1).unique(dim=1).tolist() == [[1], [NO_LABEL]]


def test_a_transform_that_works_by_the_label_is_refused():
    crop = Compose([RandCropByPosNegLabeld(["image", "label"], label_key="label", spatial_size=(2, 2))])
    with pytest.raises(ValueError, match="RandCropByPosNegLabeld"):
        with_optional_label(crop, FillLabeld("label", "image", channels=1))


def unlabelled_like(label):
    return torch.full_like(label, NO_LABEL)


@pytest.mark.parametrize(
    ("label_loss", "shape", "channel"),
    [
        (LabelLoss(), (), False),
        (nn.CrossEntropyLoss(label_smoothing=0.1), (), False),
        (LabelLoss(), (8, 8), False),
        (DiceCELoss(to_onehot_y=True, softmax=True), (8, 8), True),
        (DiceCELoss(to_onehot_y=True, softmax=True), (8, 8, 8), True),
    ],
)
def test_the_label_part_counts_labelled_items_alone(label_loss, shape, channel):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (3, *([1] if channel else []), *shape), generator=generator)
    logits = torch.randn(6, 4, *shape, generator=generator)
    logits.requires_grad_()
    teacher = torch.randn(logits.shape, generator=generator)
    loss = DistillationLoss(label_loss=label_loss)
    mixed = torch.cat([label, unlabelled_like(label)])[[0, 3, 1, 4, 2, 5]]
    parts = loss(logits, teacher, mixed)
    torch.testing.assert_close(parts["ce"], loss(logits[::2], teacher[::2], label)["ce"])
    torch.testing.assert_close(parts["kd"], DistillationLoss(ce_weight=0)(logits, teacher)["kd"])
    parts = loss(logits, teacher, unlabelled_like(mixed))
    assert parts["ce"] == 0
    parts["loss"].backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


def test_items_without_a_soft_label_count_in_soft_targets():
    label = torch.tensor([[0.5, 0.5], [NO_LABEL, NO_LABEL]])
    logits, teacher = torch.randn(2, 2), torch.randn(2, 2)
    parts = DistillationLoss()(logits, teacher, label)
    torch.testing.assert_close(parts["ce"], LabelLoss()(logits[:1], label[:1]))
    torch.testing.assert_close(parts["kd"], DistillationLoss(ce_weight=0)(logits, teacher)["kd"])


def test_all_heads_of_deep_supervision_leave_them_out():
    loss = DistillationLoss(kd_weight=0, label_loss=DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True)))
    heads = [torch.randn(2, 3, size, size) for size in (8, 4)]
    label = torch.randint(0, 3, (1, 1, 8, 8)).float()
    parts = loss(heads, None, torch.cat([unlabelled_like(label), label]))
    torch.testing.assert_close(parts["ce"], loss([head[1:] for head in heads], None, label)["ce"])


def test_both_stages_learn_from_both_kinds_through_stored_targets(tmp_path):
    student, teacher = student_resnet(2, num_classes=3), student_resnet(4, num_classes=3)
    transform = Compose([RandFlipd("image"), FillLabeld("label")])
    dataset = CacheDataset(rows(6, 10), transform, progress=False)
    views = FixedViews(dataset, views=2)
    loader = DataLoader(views, batch_size=4, sampler=MixedSampler(dataset, 4, 0.5))
    labels = []
    for kind, more in (
        (AttentionTransferTrainer, {"student_layers": ["layer1", "layer2"], "logits": False}),
        (DistillationTrainer, {}),
    ):
        trainer = kind(
            device="cpu",
            max_epochs=2,
            train_data_loader=loader,
            network=student,
            teacher=teacher,
            decollate=False,
            optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
            targets=TeacherTargets(tmp_path),
            **more,
        )
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: labels.append(engine.state.output["label"].tolist())
        )
        trainer.run()
        assert trainer.state.iteration == 2 * 3
    assert {sum(label == NO_LABEL for label in batch) for batch in labels} == {2}
