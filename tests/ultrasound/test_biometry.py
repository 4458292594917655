"""Ellipses and head circumferences against drawn ellipses whose length is known otherwise."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from monai_fetalkd.ultrasound.biometry import Ellipse, fit_ellipse, head_circumference, head_ellipse

SHAPE = (270, 400)


def drawn(center, semi_axes, angle, pixel_size=(1.0, 1.0)):
    """A filled ellipse, of pixels whose centres are inside."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    y, x = rows * pixel_size[0] - center[0], columns * pixel_size[1] - center[1]
    along, across = y * math.cos(angle) + x * math.sin(angle), x * math.cos(angle) - y * math.sin(angle)
    return (along / semi_axes[0]) ** 2 + (across / semi_axes[1]) ** 2 <= 1


def length(semi_axes):
    """The length of an ellipse by integrating along it."""
    a, b = semi_axes
    return quad(lambda turn: math.hypot(a * math.sin(turn), b * math.cos(turn)), 0, 2 * math.pi)[0]


@pytest.mark.parametrize("semi_axes", [(30.0, 30.0), (30.0, 20.0), (50.0, 5.0)])
def test_circumference_is_the_length_of_the_ellipse(semi_axes):
    assert Ellipse((0.0, 0.0), semi_axes, 0.3).circumference == pytest.approx(length(semi_axes), rel=1e-9)


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.6, 3.0])
@pytest.mark.parametrize("part", [slice(None), slice(0, 30)], ids=["whole", "arc"])
def test_fit_finds_an_exact_ellipse(angle, part):
    found = fit_ellipse(Ellipse((400.0, -70.0), (31.0, 22.0), angle).points(80)[part])
    assert (*found.center, *found.semi_axes) == pytest.approx((400.0, -70.0, 31.0, 22.0), rel=1e-6)
    assert math.cos(2 * (found.angle - angle)) == pytest.approx(1.0)


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("pixel_size", [(1.0, 1.0), (0.2, 0.2), (0.3, 0.2)])
def test_circumference_of_a_drawn_head(angle, pixel_size):
    scale = pixel_size[1]
    semi_axes = (80.0 * scale, 60.0 * scale)
    mask = drawn((135 * pixel_size[0], 200 * pixel_size[1]), semi_axes, angle, pixel_size)
    assert head_circumference(mask, pixel_size) == pytest.approx(length(semi_axes), rel=2e-3)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32])
def test_mask_of_any_type(kind):
    mask = drawn((135, 200), (80, 60), 0.5)
    assert head_circumference(mask.astype(kind)) == head_circumference(mask)


def test_a_head_cut_by_the_border_goes_on_outside():
    whole = (90.0, 70.0)
    assert head_circumference(drawn((40, 200), whole, 1.5)) == pytest.approx(length(whole), rel=1e-2)


def test_holes_and_smaller_regions_do_not_count():
    mask = drawn((135, 200), (80, 60), 0.5)
    spoilt = mask.copy()
    spoilt[120:140, 190:210] = False
    spoilt[:10, :10] = True
    assert head_circumference(spoilt) == head_circumference(mask)


def test_noise_of_the_outline_averages_out():
    points = Ellipse((0.0, 0.0), (60.0, 45.0), 0.2).points(400)
    points += np.random.default_rng(0).normal(0, 1.0, points.shape)
    assert fit_ellipse(points).circumference == pytest.approx(length((60.0, 45.0)), rel=5e-3)


@pytest.mark.parametrize("pixels", [[], [(3, 3)], [(3, 3), (3, 4)]], ids=["empty", "one pixel", "two pixels"])
def test_no_head(pixels):
    mask = np.zeros((8, 8), dtype=bool)
    for pixel in pixels:
        mask[pixel] = True
    found = head_ellipse(mask)
    assert found is None or found.semi_axes[0] < 3
    assert math.isnan(head_circumference(np.zeros((8, 8))))


def test_a_mask_without_background_has_no_outline():
    assert head_ellipse(np.ones((8, 8))) is None


@pytest.mark.parametrize("pixel_size", [0.0, -1.0, math.nan, (1.0, math.inf)])
def test_pixel_size_must_be_positive(pixel_size):
    with pytest.raises(ValueError, match="pixel_size"):
        head_ellipse(np.ones((8, 8)), pixel_size)


def test_mask_must_be_flat():
    with pytest.raises(ValueError, match=r"\(1, 8, 8\)"):
        head_ellipse(np.ones((1, 8, 8)))


@pytest.mark.parametrize(
    "points",
    [np.zeros((4, 2)), np.zeros((9, 3)), np.full((9, 2), math.nan), np.zeros((9, 2)), [(n, 2 * n) for n in range(9)]],
    ids=["four", "3-D", "nan", "the same", "a line"],
)
def test_points_that_lie_on_no_ellipse(points):
    with pytest.raises(ValueError, match="ellipse"):
        fit_ellipse(points)
