"""What holds for every random transform of frames, and for all of them in a loader."""

from __future__ import annotations

import itertools

import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, RandFlipd

from monai_fetalkd.handlers import EpochSeeder
from monai_fetalkd.ultrasound.transforms import RandSectorAffined, RandShadowd, RandSpeckled, RandTimeGaind

TRANSFORMS = [RandSectorAffined, RandTimeGaind, RandSpeckled, RandShadowd]
each = pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: transform.__name__)


@each
@pytest.mark.parametrize("seed", range(5))
def test_a_frame_stays_a_frame_and_the_outside_of_the_sector_stays_black(transform, fan, seed):
    result = transform("image", prob=1.0).set_random_state(seed)(fan)
    image = result["image"]
    assert image.dtype == torch.float32
    assert image.shape == (1, 64, 64)
    assert image.min() >= 0
    assert image.max() <= 1
    assert not image[fan["sector"] == 0].any()
    assert not torch.equal(image, fan["image"])
    assert torch.equal(result["sector"], fan["sector"])


@each
def test_the_input_is_not_written_to(transform, fan):
    before = {key: value.clone() for key, value in fan.items()}
    transform("image", prob=1.0).set_random_state(0)(fan)
    assert all(torch.equal(fan[key], before[key]) for key in before)


@each
def test_the_same_seed_gives_the_same_frames_and_another_seed_others(transform, fan):
    def draws(seed):
        transform_ = transform("image", prob=0.7).set_random_state(seed)
        return torch.stack([transform_(fan)["image"] for _ in range(6)])

    assert torch.equal(draws(1), draws(1))
    assert not torch.equal(draws(1), draws(2))


@each
def test_metadata_stays_with_the_frame(transform, fan):
    tracked = {
        "image": MetaTensor(fan["image"], meta={"filename_or_obj": "a.png"}),
        "sector": MetaTensor(fan["sector"]),
    }
    result = transform("image", prob=1.0).set_random_state(0)(tracked)["image"]
    assert isinstance(result, MetaTensor)
    assert result.meta["filename_or_obj"] == "a.png"
    plain = transform("image", prob=1.0).set_random_state(0)(fan)["image"]
    assert type(plain) is torch.Tensor
    assert torch.equal(result.as_tensor(), plain)


@each
def test_with_probability_zero_nothing_happens(transform, fan):
    assert transform("image", prob=0.0)(fan)["image"] is fan["image"]


@each
def test_the_frames_of_an_item_share_one_draw(transform, fan):
    result = transform(["image", "other"], prob=1.0).set_random_state(0)({**fan, "other": fan["image"]})
    assert torch.equal(result["image"], result["other"])


@each
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (37, 50)])
def test_frames_of_any_size_do_without_a_sector(transform, size):
    frame = torch.full((1, *size), 0.5)
    assert transform("image", prob=1.0).set_random_state(0)({"image": frame})["image"].shape == (1, *size)


@each
@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (torch.zeros(3, 8, 8), r"torch.float32 \(3, 8, 8\)"),
        (torch.zeros(8, 8), r"torch.float32 \(8, 8\)"),
        (torch.ones(1, 8, 8, dtype=torch.uint8), "torch.uint8"),
        (torch.full((1, 8, 8), 255.0), "of levels up to 255"),
    ],
    ids=["colours", "no channel", "bytes", "unscaled"],
)
def test_what_is_no_frame_is_refused(transform, frame, said):
    with pytest.raises(
        ValueError, match=rf"{transform.__name__} takes float32 frames \(1, H, W\).*'image' is .*{said}"
    ):
        transform("image", prob=1.0)({"image": frame})


@each
def test_a_missing_key_is_an_error_unless_allowed(transform):
    with pytest.raises(KeyError, match="image"):
        transform("image", prob=1.0)({})
    assert transform("image", prob=1.0, allow_missing_keys=True)({}) == {}


@pytest.mark.parametrize("transform", [RandSectorAffined, RandShadowd])
@pytest.mark.parametrize("mask", [torch.ones(1, 4, 4), torch.zeros(1, 8, 8)], ids=["other size", "empty"])
def test_a_mask_that_does_not_fit_is_refused(transform, mask):
    with pytest.raises(ValueError, match=r"The mask 'sector' of a frame \(1, 8, 8\) must have its shape and mark"):
        transform("image", prob=1.0)({"image": torch.ones(1, 8, 8), "sector": mask})


def loader(fan, num_workers):
    """Twelve times the same frame, through all transforms: what differs afterwards is their randomness alone."""
    transforms = [transform("image", prob=1.0) for transform in TRANSFORMS]
    transforms.append(RandFlipd("image", prob=0.5, spatial_axis=1))
    dataset = CacheDataset([fan] * 12, Compose(transforms), progress=False)
    return DataLoader(dataset, batch_size=3, num_workers=num_workers, shuffle=True)


def epoch(batches):
    return torch.cat([batch["image"].as_tensor() for batch in batches])


@pytest.mark.parametrize("num_workers", [0, 2])
class TestLoader:
    def test_no_two_frames_of_an_epoch_or_of_two_epochs_are_alike(self, fan, num_workers):
        torch.manual_seed(0)
        batches = loader(fan, num_workers)
        frames = torch.cat([epoch(batches), epoch(batches)])
        assert not any(torch.equal(one, other) for one, other in itertools.combinations(frames, 2))

    def test_the_same_seed_gives_the_same_epoch(self, fan, num_workers):
        def first_epoch(seed):
            torch.manual_seed(seed)
            return epoch(loader(fan, num_workers))

        assert torch.equal(first_epoch(0), first_epoch(0))
        assert not torch.equal(first_epoch(0), first_epoch(1))

    def test_an_epoch_is_the_same_however_the_run_came_to_it_and_differs_from_others(self, fan, num_workers):
        def epoch_of_run(number):
            batches = loader(fan, num_workers)
            engine = Engine(lambda engine, batch: None)
            engine.state.epoch = number
            EpochSeeder(batches.dataset, seed=0)(engine)
            return epoch(batches)

        assert torch.equal(epoch_of_run(2), epoch_of_run(2))
        assert not torch.equal(epoch_of_run(2), epoch_of_run(3))
