from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.transforms import (
    Compose,
    OneOf,
    RandAffined,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandSpatialCropSamplesd,
    ScaleIntensityd,
)

from monai_fetalkd.handlers import EpochSeeder
from monai_fetalkd.targets import FixedViews


def frames(count=6):
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, 8, 8, generator=generator), "label": index % 3} for index in range(count)]


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


def images(views, epoch=0):
    views.set_epoch(epoch)
    return torch.stack([views[index]["image"] for index in range(len(views))])


def test_an_item_is_that_of_the_dataset_and_the_number_of_its_view():
    views = fixed(views=3)
    views.set_epoch(5)
    item = views[4]
    assert item.keys() == {"image", "label", "view"}
    assert (item["label"], item["view"]) == (1, 4 * 3 + 5 % 3)


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
        (lambda: fixed()[6], IndexError, "no item 6 among 6"),
        (lambda: fixed()[-1], IndexError, "no item -1 among 6"),
        (
            lambda: fixed(transform=Compose([RandSpatialCropSamplesd("image", (4, 4), 2)]))[0],
            ValueError,
            "items that are dictionaries, but item 0 is a list",
        ),
    ],
)
def test_what_cannot_have_fixed_views_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
