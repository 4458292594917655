from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from monai_fetalkd.ultrasound.transforms import RandShadowd, RandSpeckled, RandTimeGaind
from monai_fetalkd.ultrasound.transforms.intensity import DYNAMIC_RANGE

GREY = torch.full((1, 61, 40), 0.5)


def gains(transform, seed, frame=GREY):
    """What a transform does to even grey, in dB."""
    return ((transform.set_random_state(seed)({"image": frame})["image"] - frame) * DYNAMIC_RANGE)[0].double()


@pytest.mark.parametrize("seed", range(5))
def test_time_gain_is_a_broken_line_between_equally_spaced_sliders(seed):
    curve = gains(RandTimeGaind("image", prob=1.0, gain_db=6.0, slider_db=4.0, sliders=6), seed)
    assert (curve == curve[:, :1]).all()
    sliders = curve[::12, 0]
    assert len(sliders) == 6
    np.testing.assert_allclose(curve[:, 0], np.interp(np.arange(61) / 12, np.arange(6), sliders), atol=2e-5)
    assert sliders.abs().max() <= 10
    assert sliders.max() - sliders.min() <= 8
    assert sliders.std() > 0


def test_time_gain_goes_both_ways_and_as_far_as_it_may():
    overall = torch.stack(
        [gains(RandTimeGaind("image", 1.0, gain_db=6.0, slider_db=0.0), seed)[0, 0] for seed in range(200)]
    )
    assert overall.min() < -5
    assert overall.max() > 5
    assert overall.abs().max() <= 6
    assert abs(overall.mean()) < 1


def test_no_gain_is_no_change():
    frame = torch.rand(1, 8, 8)
    assert torch.equal(RandTimeGaind("image", 1.0, gain_db=0.0, slider_db=0.0)({"image": frame})["image"], frame)


@pytest.mark.parametrize("seed", range(4))
def test_a_gain_is_an_offset_of_the_levels_that_keeps_black_black_and_their_order(seed):
    levels = torch.linspace(0, 1, 101).expand(1, 4, 101)
    transform = RandTimeGaind("image", prob=1.0, gain_db=12.0, slider_db=0.0).set_random_state(seed)
    result = transform({"image": levels})["image"][0, 0]
    offset = result[50] - 0.5
    whole = (levels[0, 0] >= offset.abs()) & (levels[0, 0] + offset <= 1)
    torch.testing.assert_close(result[whole], levels[0, 0, whole] + offset)
    assert result[0] == 0
    assert (result.diff() >= 0).all()


def test_added_speckle_is_that_of_fully_developed_speckle_after_log_compression():
    transform = RandSpeckled("image", prob=1.0)
    noise = [gains(transform, seed, torch.full((1, 96, 97), 0.5)) for seed in range(40)]
    shapes = torch.stack([field / field.std() for field in noise])
    # the logarithm of a Rayleigh variable is half that of an exponential one, a Gumbel variable turned round
    truth = stats.gumbel_l(loc=np.euler_gamma * np.sqrt(6) / np.pi, scale=np.sqrt(6) / np.pi)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert shapes.quantile(share).item() == pytest.approx(truth.ppf(share), abs=0.06)


def test_added_speckle_is_neutral_limited_and_even_over_the_frame():
    transform = RandSpeckled("image", prob=1.0, std_db=3.0)
    fields = torch.stack([gains(transform, seed, torch.full((1, 32, 33), 0.5)) for seed in range(400)])
    assert abs(fields.mean().item()) < 0.05
    strengths = fields.flatten(1).std(1)
    assert strengths.min() < 0.3
    assert 2.7 < strengths.max() < 3.6
    spread = fields.std(0)
    for part in (spread[0], spread[-1], spread[:, 0], spread[:, -1], spread[::2, ::2], spread[1::2, 1::2]):
        assert part.mean().item() == pytest.approx(spread.mean().item(), rel=0.05)


def test_added_speckle_has_grains_of_a_few_pixels():
    field = gains(RandSpeckled("image", prob=1.0), 0, torch.full((1, 128, 128), 0.5))
    near, far = (np.corrcoef(field[:, :-lag].flatten(), field[:, lag:].flatten())[0, 1] for lag in (1, 6))
    assert near > 0.4
    assert abs(far) < 0.05


@pytest.mark.parametrize("seed", range(10))
def test_a_shadow_is_dark_in_one_wedge_between_beams_from_its_depth_downwards(fan, seed):
    width, depth = 0.2, 0.5
    transform = RandShadowd("image", prob=1.0, loss_db=(12.0, 12.0), width=(width, width), depth=(depth, depth))
    grey = 0.5 * fan["sector"]
    loss = (transform.set_random_state(seed)({**fan, "image": grey})["image"] - grey)[0].double() * DYNAMIC_RANGE
    assert loss.max() == 0
    assert loss.min() >= -12 - 1e-4
    rows = fan["sector"][0].amax(1).nonzero()[:, 0]
    assert (loss[: rows[0] + len(rows) // 2] == 0).all()
    # the fixture's apex is 20.5 pixels above the frame's first row; its sides are 0.6 radians off the vertical
    y, x = (loss < -0.5).nonzero().double().T
    slopes = (x - 31.5) / (y + 20.5) / np.tan(0.6)
    assert slopes.max() - slopes.min() < 2 * width * 1.15
    if slopes.abs().max() < 0.7:
        assert loss[-8].min() < -11  # the middle of the wedge loses all of it


def test_a_rectangle_has_parallel_beams():
    transform = RandShadowd("image", prob=1.0, width=(0.3, 0.3), depth=(0.2, 0.2)).set_random_state(0)
    loss = (transform({"image": GREY})["image"] - GREY)[0]
    assert (loss < 0).any()
    assert (loss[30:] == loss[30]).all()


def test_shadows_fall_everywhere():
    transform = RandShadowd("image", prob=1.0, depth=(0.0, 0.0)).set_random_state(0)
    dark = torch.stack([transform({"image": GREY})["image"][0, -1] < 0.45 for _ in range(200)])
    assert (dark.float().mean(0) > 0.02).all()
