from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fetalkd.losses.attention import attention_map

SHAPES = [(2, 3, 5), (2, 3, 4, 6), (2, 3, 4, 2, 3)]


def random_feature(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("power", [1, 2, 2.5, 4])
def test_spatial_map_is_the_mean_over_channels(shape, power):
    feature = random_feature(shape)
    expected = (np.abs(feature.numpy()) ** power).mean(axis=1)
    np.testing.assert_allclose(attention_map(feature, "spatial", power, "channels_first"), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("power", [1, 2, 2.5, 4])
def test_channel_map_is_the_mean_over_space(shape, power):
    feature = random_feature(shape)
    expected = (np.abs(feature.numpy()) ** power).mean(axis=tuple(range(2, len(shape))))
    np.testing.assert_allclose(attention_map(feature, "channel", power, "channels_first"), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["spatial", "channel"])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_gradient_agrees_with_finite_differences(kind, power):
    feature = random_feature((2, 3, 2, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: attention_map(x, kind, power), feature)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 4.0])
def test_gradient_is_zero_at_zero(power):
    feature = torch.zeros(1, 2, 3, 3, requires_grad=True)
    attention_map(feature, power=power).sum().backward()
    assert torch.equal(feature.grad, torch.zeros_like(feature))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_raised_before_the_power(dtype, scale, autocast):
    feature = (random_feature((2, 3, 4, 4)).sign() * scale).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = attention_map(feature)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), attention_map(feature.double()), rtol=1e-6, atol=0)


def test_metatensor_gives_a_plain_map_on_its_graph():
    leaf = random_feature((1, 2, 3, 3)).requires_grad_()
    result = attention_map(MetaTensor(leaf * 1))
    assert type(result) is torch.Tensor
    result.sum().backward()
    torch.testing.assert_close(leaf.grad, leaf.detach())  # d/dx mean over 2 channels of x^2 = x


def test_feature_without_space_is_refused():
    with pytest.raises(ValueError, match=r"at least one spatial dimension, got \(2, 3\)"):
        attention_map(torch.zeros(2, 3))


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"one of \('spatial', 'channel'\), got 'temporal'"):
        attention_map(torch.zeros(1, 1, 1), kind="temporal")


@pytest.mark.parametrize("power", [0.5, 0, -2, float("nan")])
def test_power_with_an_infinite_gradient_is_refused(power):
    with pytest.raises(ValueError, match="power must be at least 1"):
        attention_map(torch.zeros(1, 1, 1), power=power)
