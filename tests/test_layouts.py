from __future__ import annotations

import pytest
import torch

from monai_fetalkd.layouts import channels_first, check_layout, spatial_feature


def test_each_layout_keeps_the_values_where_they_belong():
    image = torch.randn(2, 5, 3, 4)
    tokens = image.flatten(2).transpose(1, 2)
    with_class = torch.cat([torch.full((2, 1, 5), 9.0), tokens], 1)
    for feature, layout in (
        (image, None),
        (image, "channels_first"),
        (image.movedim(1, -1), "channels_last"),
        (tokens, [3, 4]),
        (with_class, [3, 4]),
    ):
        assert torch.equal(channels_first(feature, layout), image)
    for layout in (None, "tokens"):
        assert torch.equal(channels_first(tokens, layout), image.flatten(2))


@pytest.mark.parametrize(
    ("shape", "image_size", "expected"),
    [
        ((2, 8, 16, 16), (32, 32), (2, 8, 16, 16)),
        ((2, 196, 8), (224, 224), (2, 8, 14, 14)),
        ((2, 197, 8), (224, 224), (2, 8, 14, 14)),
        ((2, 32, 8), (128, 64), (2, 8, 8, 4)),
        ((2, 9, 8), (32, 32, 32), (2, 8, 2, 2, 2)),
        ((2, 8), (32, 32), (2, 8)),
        ((2, 8, 40), (80,), (2, 8, 40)),  # of a 1-D network, channels first
        ((6, 8, 16, 16), (3, 32, 32), (6, 8, 16, 16)),  # of patches folded into the batch
    ],
)
def test_a_layout_that_the_shapes_tell_needs_no_word(shape, image_size, expected):
    assert spatial_feature("blocks.3", torch.zeros(shape), None, image_size).shape == expected


@pytest.mark.parametrize(
    ("shape", "layout", "image_size", "told"),
    [
        ((2, 16, 16, 24), None, (32, 32), "blocks.3.*channels last"),
        ((2, 4, 4, 4, 48), None, (32, 32, 32), "channels last"),
        ((2, 200, 8), None, (224, 224), r"blocks.3.*200 tokens.*\[14, 14\]"),
        ((2, 200, 8), "tokens", (224, 224), "200 tokens"),
        ((2, 200, 8), [15, 15], (224, 224), "200 tokens.*15, 15"),
        ((2, 8, 16, 16), "tokens", (32, 32), r"\[N, L, C\].*\(2, 8, 16, 16\)"),
    ],
)
def test_a_layout_that_cannot_be_known_is_refused(shape, layout, image_size, told):
    with pytest.raises(ValueError, match=told):
        spatial_feature("blocks.3", torch.zeros(shape), layout, image_size)


def test_a_layout_that_is_given_is_taken():
    swin = torch.randn(2, 16, 16, 24)
    assert torch.equal(spatial_feature("a", swin, "channels_last", (32, 32)), swin.movedim(-1, 1))
    assert torch.equal(spatial_feature("a", swin, "channels_first", (32, 32)), swin)
    registers = torch.randn(2, 20, 8)  # a class token and three registers before 16 patches
    assert spatial_feature("a", registers, [4, 4], (32, 32)).shape == (2, 8, 4, 4)


@pytest.mark.parametrize("layout", ["channel_last", "", [], [0, 4], [4, 4.5]])
def test_what_is_no_layout_is_refused(layout):
    with pytest.raises(ValueError, match="channels_last"):
        check_layout(layout)
