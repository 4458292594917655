from __future__ import annotations

import copy
import os
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import (
    CacheDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    PersistentDataset,
    SmartCacheDataset,
    ThreadDataLoader,
)
from monai.transforms import (
    Compose,
    LoadImaged,
    MapTransform,
    OneOf,
    RandAffined,
    RandCropByPosNegLabeld,
    RandGaussianNoised,
    RandScaleIntensityd,
    ScaleIntensityd,
)

from monai_fetalkd.handlers import EpochSeeder
from monai_fetalkd.targets import FixedViews


def frames(count=6):
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, 8, 8, generator=generator), "label": index % 3} for index in range(count)]


DRAWN = []


def counted(item):
    DRAWN.append(item["label"])
    return item


def transforms():
    return Compose(
        [
            ScaleIntensityd("image"),
            RandAffined("image", prob=0.8, rotate_range=0.5),
            OneOf([RandScaleIntensityd("image", factors=0.5, prob=1.0), RandGaussianNoised("image", prob=1.0)]),
        ]
    )


def fixed(views=3, seed=0, transform=None, kind=Dataset, **arguments):
    return FixedViews(kind(frames(), transform or transforms(), **arguments), views, seed)


def smart_cache(rows, transform):
    return SmartCacheDataset(rows, transform, replace_rate=0.5, cache_num=4, progress=False)


def images(views, epoch=0):
    views.set_epoch(epoch)
    return torch.stack([views[index]["image"] for index in range(len(views))])


def test_an_item_is_that_of_the_dataset_and_the_number_of_its_view():
    views = fixed(views=3)
    views.set_epoch(5)
    item = views[4]
    assert item.keys() == {"image", "label", "view"}
    assert (item["label"], item["view"]) == (1, 4 * 3 + 5 % 3)


def test_views_that_are_kept_are_drawn_once_and_are_the_same():
    DRAWN.clear()
    kept = FixedViews(Dataset(frames(), Compose([*transforms().transforms, counted])), views=2, keep=True)
    drawn = FixedViews(Dataset(frames(), transforms()), views=2)
    for epoch in range(4):
        for views in (kept, drawn):
            views.set_epoch(epoch)
        for one, other in zip(kept, drawn, strict=True):
            assert one["view"] == other["view"]
            assert torch.equal(one["image"], other["image"])
    assert len(DRAWN) == 2 * len(frames()) + 1  # one more to count the samples of an item


def test_the_pixels_of_a_view_do_not_depend_on_what_was_drawn_before():
    views = fixed()
    expected = images(views)
    backwards = [views[index]["image"] for index in reversed(range(len(views)))]
    torch.testing.assert_close(torch.stack(backwards[::-1]), expected, rtol=0, atol=0)
    torch.testing.assert_close(images(fixed()), expected, rtol=0, atol=0)


@pytest.mark.parametrize("views", [1, 3])
def test_epoch_e_shows_view_e_modulo_the_number_of_views(views):
    dataset = fixed(views)
    shown = [images(dataset, epoch) for epoch in range(2 * views)]
    for epoch, pixels in enumerate(shown):
        for other, pixels_then in enumerate(shown):
            assert torch.equal(pixels, pixels_then) == (epoch % views == other % views)


def test_frames_views_seeds_and_transforms_have_streams_of_their_own():
    noise = Compose([RandGaussianNoised("image", prob=1.0, mean=0.0), RandGaussianNoised("twin", prob=1.0, mean=0.0)])
    rows = [{"image": torch.zeros(1, 50), "twin": torch.zeros(1, 50)}] * 4
    drawn = []
    for seed in range(3):
        views = FixedViews(Dataset(rows, noise), views=4, seed=seed)
        for epoch in range(4):
            views.set_epoch(epoch)
            drawn += [views[index][key].flatten() for index in range(4) for key in ("image", "twin")]
    correlation = torch.corrcoef(torch.stack(drawn)) - torch.eye(len(drawn))
    assert correlation.abs().max() < 0.7  # of 4560 pairs of 50 independent numbers; a shared stream gives 1


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(CacheDataset, {"progress": False}), (CacheDataset, {"cache_num": 2, "progress": False}), (PersistentDataset, {})],
)
def test_caches_give_the_same_pixels(kind, arguments, tmp_path):
    if kind is PersistentDataset:
        arguments = {"cache_dir": tmp_path}
    torch.testing.assert_close(images(fixed(kind=kind, **arguments)), images(fixed()), rtol=0, atol=0)


@pytest.mark.parametrize(
    "workers", [{"num_workers": 0}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}]
)
def test_workers_draw_the_same_pixels(workers):
    views = fixed(views=2)
    expected = [images(views, epoch) for epoch in range(3)]
    loader = DataLoader(views, batch_size=4, **workers)
    for epoch in range(3):
        views.set_epoch(epoch)
        drawn = list(loader)
        torch.testing.assert_close(torch.cat([batch["image"] for batch in drawn]), expected[epoch], rtol=0, atol=0)
        assert torch.cat([batch["view"] for batch in drawn]).tolist() == [2 * index + epoch % 2 for index in range(6)]


@pytest.mark.parametrize("kind", [Dataset, CacheDataset, PersistentDataset])
def test_threads_draw_the_same_pixels(kind, tmp_path):
    arguments = {Dataset: {}, CacheDataset: {"progress": False}, PersistentDataset: {"cache_dir": tmp_path}}[kind]
    transform = Compose(
        [
            ScaleIntensityd("image"),
            RandAffined("image", prob=1.0, rotate_range=0.5),
            RandGaussianNoised("image", prob=1.0),
        ]
    )
    rows = [{"image": torch.rand(1, 48, 48)} for _ in range(24)]
    views = FixedViews(kind(rows, transform, **arguments), 1)
    expected = images(views)
    loader = ThreadDataLoader(views, batch_size=2, num_workers=4, use_thread_workers=True)
    for _ in range(2):
        for batch in loader:
            torch.testing.assert_close(torch.as_tensor(batch["image"]), expected[batch["view"]], rtol=0, atol=0)


COPIES = {
    "shallow": copy.copy,
    "deep": copy.deepcopy,
    "pickle": lambda views: pickle.loads(pickle.dumps(views)),
    "sent to a worker": lambda views: pickle.loads(bytes(ForkingPickler.dumps(views))),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_draws_the_same_views_and_its_persistent_workers_follow_its_epoch(copied):
    views = fixed(views=2)
    expected = [images(views, epoch) for epoch in range(2)]
    other = copied(views)
    assert other.description() == views.description()
    loader = DataLoader(other, batch_size=6, num_workers=1, persistent_workers=True)
    for epoch in (1, 0, 1):
        other.set_epoch(epoch)
        (batch,) = loader
        torch.testing.assert_close(batch["image"], expected[epoch], rtol=0, atol=0)
        other.check_epoch(batch["view"])


def test_what_is_sent_to_a_worker_follows_the_epoch():
    views = fixed(views=2)
    sent = COPIES["sent to a worker"](views)
    views.set_epoch(5)
    assert sent.epoch == 5


class TestSamples:
    """Transforms that make a list of an item."""

    @staticmethod
    def fixed(views=3, count=2, kind=Dataset, **arguments):
        generator = torch.Generator().manual_seed(0)
        rows = [
            {"image": torch.rand(1, 8, 8, generator=generator), "label": torch.ones(1, 8, 8), "name": str(index)}
            for index in range(4)
        ]
        crop = RandCropByPosNegLabeld(["image", "label"], "label", (4, 4), num_samples=count)
        return FixedViews(kind(rows, Compose([crop, RandGaussianNoised("image", prob=1.0)]), **arguments), views)

    def test_each_sample_has_a_number_of_its_own(self):
        views = self.fixed()
        assert (views.samples, views.rows) == (2, 4 * 2 * 3)
        pixels = {}
        for epoch in range(6):
            views.set_epoch(epoch)
            for index in range(4):
                for sample in views[index]:
                    first = pixels.setdefault(sample["view"], sample["image"])
                    torch.testing.assert_close(sample["image"], first, rtol=0, atol=0)
        assert sorted(pixels) == list(range(views.rows))
        assert len({float(image.sum()) for image in pixels.values()}) == views.rows

    @pytest.mark.parametrize("workers", [0, 2])
    def test_loaders_flatten_them_in_batches(self, workers):
        views = self.fixed()
        views.set_epoch(1)
        batches = list(DataLoader(views, batch_size=2, num_workers=workers))
        assert torch.cat([batch["view"] for batch in batches]).tolist() == [3 * row + 1 for row in range(8)]

    def test_a_list_of_one_is_numbered_as_a_dictionary(self):
        views = self.fixed(count=1)
        assert [sample["view"] for sample in views[2]] == [2 * 3]
        assert (views.samples, views.rows) == (1, 4 * 3)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_number_of_samples_that_varies_is_refused(self, workers):
        rows = [{"image": torch.zeros(1, 4, 4), "count": count} for count in (2, 2, 2, 3)]
        views = FixedViews(Dataset(rows, Compose([Repeated("image")])), 1)
        with pytest.raises(ValueError, match="3 of item 3 and 2 of item 0"):
            list(DataLoader(views, batch_size=1, num_workers=workers))

    def test_rows_of_dictionaries_are_those_of_the_dataset(self):
        views = fixed(views=3)
        assert (views.samples, views.rows) == (1, 6 * 3)
        assert FixedViews(Dataset([], transforms()), 3).rows == 0


class Repeated(MapTransform):
    def __call__(self, data):
        return [dict(data) for _ in range(data["count"])]


def test_batches_that_workers_drew_in_the_epoch_before_are_noticed():
    views = fixed(views=2)
    batches = iter(DataLoader(views, batch_size=1, num_workers=1, prefetch_factor=6))
    views.check_epoch(next(batches)["view"])
    drawn = list(batches)
    views.set_epoch(1)  # in the middle of the pass, as a trainer with a short epoch_length does
    with pytest.raises(ValueError, match=r"Epoch 1 shows view 1 .* this batch shows 0: .*epoch_length"):
        views.check_epoch(drawn[0]["view"])
    views.set_epoch(2)
    views.check_epoch(drawn[0]["view"])


@pytest.mark.parametrize("change", [lambda rows: rows[::-1], lambda rows: [*rows, rows[0]]])
@pytest.mark.parametrize(
    "use", [lambda views: views[0], len, lambda views: views.description(), lambda views: list(DataLoader(views))]
)
def test_data_that_are_replaced_later_are_noticed(change, use):
    dataset = CacheDataset(frames(), transforms(), progress=False)
    views = FixedViews(dataset, 2)
    dataset.set_data(change(dataset.data))
    with pytest.raises(ValueError, match="FixedViews"):
        use(views)


def test_a_description_does_not_depend_on_the_working_directory_but_on_files(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.float32))
    (tmp_path / "brain").write_text("a file with the name of a class")
    monkeypatch.chdir(tmp_path)
    rows = [{"image": str(tmp_path / "a.npy"), "mask": str(tmp_path / "a.npy"), "label": "brain"}]

    def described():
        return FixedViews(Dataset(rows, Compose([LoadImaged(["image", "mask"])])), 1).description()

    before = described()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert described() == before
    os.utime(tmp_path / "a.npy", ns=(1, 1))
    assert described() != before


def test_a_seeded_training_shows_the_views_in_turn():
    views = fixed(views=2)
    seen = []
    engine = Engine(lambda _, batch: seen.append(sorted(view % 2 for view in batch["view"].tolist())))
    EpochSeeder(views, seed=0).attach(engine)
    engine.run(DataLoader(views, batch_size=6, shuffle=True), max_epochs=3)
    assert seen == [[0] * 6, [1] * 6, [0] * 6]


def test_a_description_knows_all_that_the_pixels_depend_on():
    same = fixed().description()
    used = fixed()
    images(used)
    assert used.description() == same
    assert same["frames"] == 6
    others = [
        fixed(views=4),
        fixed(seed=1),
        fixed(transform=Compose([ScaleIntensityd("image")])),
        FixedViews(Dataset(frames(5), transforms()), 3),
        FixedViews(Dataset(frames()[::-1], transforms()), 3),
    ]
    assert all(other.description() != same for other in others)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: fixed(views=0), ValueError, "views must be 1 or more, got 0"),
        (lambda: FixedViews([1, 2], 1), TypeError, "needs a MONAI dataset with a Compose, but got a list"),
        (lambda: fixed(kind=smart_cache), TypeError, "an index of SmartCacheDataset is another item"),
        (lambda: fixed(kind=IterableDataset), TypeError, "an index of IterableDataset is another item"),
        (lambda: FixedViews(Dataset([{"view": "A4C"}], Compose([])), 1)[0], ValueError, "'view', but item 0 has one"),
        (lambda: fixed()[6], IndexError, "no item 6 among 6"),
        (lambda: fixed()[-1], IndexError, "no item -1 among 6"),
        (lambda: FixedViews(Dataset([1], Compose([])), 1)[0], ValueError, "item 0 is a int"),
        (lambda: FixedViews(Dataset([[1]], Compose([])), 1)[0], ValueError, "item 0 is a list of int"),
        (lambda: FixedViews(Dataset([[]], Compose([])), 1)[0], ValueError, "item 0 is a list"),
    ],
)
def test_what_cannot_have_fixed_views_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
