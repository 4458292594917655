from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_fetalkd.ultrasound.transforms import RandSectorAffined


def still(**motion):
    """A transform that does nothing but this."""
    return RandSectorAffined("image", prob=1.0, **{"rotate": 0.0, "zoom": (1.0, 1.0), "shift": 0.0} | motion)


def blob(size=(64, 64), centre=(32.0, 32.0), spread=3.0):
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    distance = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    return torch.from_numpy(np.exp(-distance / (2 * spread**2)).astype(np.float32))[None]


def centre_of(frame):
    return np.add(ndimage.center_of_mass(frame[0].numpy()), 0.5)


def test_no_motion_is_no_change(fan):
    torch.testing.assert_close(still()(fan)["image"], fan["image"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("seed", range(4))
def test_rotation_is_rigid_also_in_frames_that_are_not_square(size, seed):
    arm = 12.0
    middle = np.divide(size, 2)
    frame = blob(size, np.add(middle, (0, arm)), spread=1.5)
    turned = np.subtract(centre_of(still(rotate=90.0).set_random_state(seed)({"image": frame})["image"]), middle)
    assert np.hypot(*turned) == pytest.approx(arm, abs=0.1)


class Largest(np.random.RandomState):
    """Draws the largest number it may."""

    def uniform(self, low, high, size=None):
        return high if size is None else np.full(size, high)


def test_a_quarter_turn_is_a_quarter_turn():
    frame = torch.rand((1, 32, 32), generator=torch.Generator().manual_seed(0))
    transform = still(rotate=90.0).set_random_state(state=Largest())
    torch.testing.assert_close(transform({"image": frame})["image"], frame.rot90(-1, (1, 2)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("zoom", [0.8, 1.5])
def test_zoom_is_that_of_scipy(zoom):
    frame = blob(centre=(36.0, 26.0), spread=6.0)
    middle = np.array([31.5, 31.5])
    truth = ndimage.affine_transform(frame[0].numpy(), np.eye(2) / zoom, middle - middle / zoom, order=1)
    result = still(zoom=(zoom, zoom))({"image": frame})["image"][0]
    np.testing.assert_allclose(result[8:-8, 8:-8], truth[8:-8, 8:-8], atol=1e-4)


def test_motion_is_about_the_centre_of_the_sector_and_in_its_measure():
    mask = torch.zeros(1, 64, 64)
    mask[:, 10:50, 4:44] = 1
    item = {"image": blob(centre=(30.0, 24.0)) * mask, "sector": mask}
    zoomed = still(zoom=(1.4, 1.4), rotate=30.0).set_random_state(0)(item)["image"]
    np.testing.assert_allclose(centre_of(zoomed), (30.0, 24.0), atol=0.05)
    transform = still(shift=0.2).set_random_state(0)
    moves = np.array([centre_of(transform(item)["image"]) for _ in range(60)]) - (30.0, 24.0)
    assert np.abs(moves).max() < 0.2 * 40 + 0.3
    assert (moves.max(0) > 5).all()
    assert (moves.min(0) < -5).all()


@pytest.mark.parametrize("seed", range(8))
def test_the_sector_stays_where_it_is_and_full(fan, seed):
    even = {"image": 0.5 * fan["sector"], "sector": fan["sector"]}
    result = RandSectorAffined("image", prob=1.0, rotate=30.0, zoom=(0.7, 1.3)).set_random_state(seed)(even)["image"]
    torch.testing.assert_close(result, even["image"], atol=1e-4, rtol=0)
