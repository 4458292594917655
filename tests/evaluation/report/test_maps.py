from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from monai_fetalkd.evaluation.report.maps import attention_maps, grad_cam, loaded_copy, similarity
from monai_fetalkd.evaluation.report.pictures import frame_picture, heat_picture


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_the_network_given_stays_as_it_is(tmp_path):
    given, trained = small_network().train().requires_grad_(False), small_network()
    with torch.no_grad():
        trained[0].weight.add_(1)
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    before = given[0].weight.clone()
    loaded = loaded_copy(given, tmp_path / "trained.pt")
    grad_cam(loaded, "0", torch.rand(2, 1, 8, 8))
    assert torch.equal(loaded[0].weight, trained[0].weight)
    assert not loaded.training
    assert torch.equal(given[0].weight, before)
    assert given.training
    assert not given[0].weight.requires_grad
    assert not any(module._forward_hooks for module in given.modules())


def test_attention_is_the_mean_square_over_channels_of_any_number_of_frames():
    network, images = small_network(), torch.rand(19, 1, 8, 8)
    (maps,) = attention_maps(network, ["0"], images)
    torch.testing.assert_close(maps, network[0](images).square().mean(dim=1).detach())


def test_grad_cam_of_a_batch_is_that_of_each_frame_by_hand():
    network, images = small_network().eval(), torch.rand(4, 1, 8, 8)
    maps, probabilities = grad_cam(small_network().eval(), "0", images)
    for image, found, probability in zip(images, maps, probabilities, strict=True):
        feature = network[0](image[None]).detach().requires_grad_()
        logits = network[1:](feature)
        logits.max().backward()
        expected = (feature.grad.mean(dim=(2, 3), keepdim=True) * feature).sum(dim=1).relu()[0]
        torch.testing.assert_close(found, expected.detach())
        torch.testing.assert_close(probability, logits.softmax(dim=1)[0].detach())


def test_maps_of_unequal_size_are_compared_at_the_smaller_one():
    large = torch.rand(2, 8, 6)
    assert similarity(large, 3 * nn.functional.avg_pool2d(large, 2)) == pytest.approx([1, 1])


def test_a_frame_keeps_its_shape_and_its_levels():
    shown = picture(frame_picture(torch.cat([torch.zeros(1, 10, 40), torch.ones(1, 10, 40)], dim=1)))
    assert shown.format == "PNG"
    assert shown.width == 2 * shown.height
    pixels = np.asarray(shown)
    assert pixels[0, 0] == 0
    assert pixels[-1, -1] == 255


def test_the_hot_end_of_a_map_is_yellow_and_the_cold_one_violet():
    pixels = np.asarray(picture(heat_picture(torch.zeros(1, 32, 32), torch.tensor([[0.0, 5.0]])))).astype(int)
    cold, hot = pixels[100, 5], pixels[100, -5]
    assert cold[2] > cold[1]
    assert hot[0] > hot[2] + 80
    assert hot[1] > hot[2] + 80


def test_heat_stays_inside_the_sector():
    frame = torch.zeros(1, 100, 100)
    frame[:, 30:90, 20:80] = torch.rand(1, 60, 60, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    pixels = np.asarray(picture(heat_picture(frame, torch.rand(8, 8)))).astype(int)
    saturation = pixels.max(axis=2) - pixels.min(axis=2)
    assert saturation[:40].max() < 25  # above the sector, but for the traces of JPEG
    assert np.median(saturation[80:160, 60:140]) > 25


def test_a_constant_map_is_shown_too():
    picture(heat_picture(torch.rand(1, 32, 32), torch.zeros(4, 4))).load()
