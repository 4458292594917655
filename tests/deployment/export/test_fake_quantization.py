from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from monai_fetalkd.deployment.export import fake_quantized, trace, write_int8, write_onnx
from monai_fetalkd.deployment.export.formats import NetworkWithAttention
from monai_fetalkd.deployment.runtime.sessions import OnnxRuntimeSession


@pytest.fixture(scope="module")
def int8_logits(frames, tmp_path_factory):
    """Logits of a network's INT8 file, calibrated on the very frames that it then sees."""
    images = frames("validation")[0].numpy()

    def compute(network):
        folder = tmp_path_factory.mktemp("int8")
        traced = trace(NetworkWithAttention(network, "layer4"), images.shape[1:])
        write_onnx(traced, ["logits", "attention"], folder / "a.onnx", {})
        write_int8(folder / "a.onnx", images, folder / "b.onnx", {}, 7)
        return OnnxRuntimeSession(str(folder / "b.onnx"), 1)(images, "logits")

    return compute


@pytest.fixture(scope="module")
def plain_int8(int8_logits, trained):
    return int8_logits(trained)


@pytest.mark.parametrize("bits", [7, 8])
def test_it_rounds_to_the_grid_of_the_int8_file(tmp_path, bits):
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), torch.randn(20, 1, 4, 4)
    write_onnx(trace(network, images.shape[1:]), ["logits"], tmp_path / "a.onnx", {})
    write_int8(tmp_path / "a.onnx", images.numpy(), tmp_path / "b.onnx", {}, bits)
    expected = OnnxRuntimeSession(str(tmp_path / "b.onnx"), 1)(images.numpy(), "logits")
    exact = network(images).detach()
    rounded = fake_quantized(network, bits)(images).detach()
    assert np.abs(expected - exact.numpy()).max() > 1e-3
    np.testing.assert_allclose(rounded, expected, rtol=0, atol=2e-4)  # the bias is rounded too


def test_a_deep_network_loses_as_much_in_the_same_direction(trained, frames, plain_int8, relative_rms):
    images = frames("validation")[0]
    exact = trained(images).numpy()
    rounded = fake_quantized(copy.deepcopy(trained), 7)(images).numpy()
    errors = np.ravel(plain_int8 - exact), np.ravel(rounded - exact)
    assert np.linalg.norm(errors[1]) == pytest.approx(np.linalg.norm(errors[0]), rel=0.25)
    # not the same: the file has the ranges of the exact network's activations, and an error moves the next range
    assert np.corrcoef(*errors)[0, 1] > 0.4


def test_distilled_on_the_grid_a_network_loses_less(
    trained, frames, plain_int8, int8_logits, new_network, relative_rms
):
    images = frames("validation")[0]
    target = trained(images)
    student = fake_quantized(copy.deepcopy(trained), 7).requires_grad_(True)  # in eval mode: batch norm as in the file
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-4)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.mse_loss(student(images), target).backward()
        optimizer.step()
    plain = new_network().eval()
    plain.load_state_dict(student.state_dict())  # every name and shape is the plain network's
    assert relative_rms(int8_logits(plain), target) < relative_rms(plain_int8, target)


def test_a_copy_computes_with_its_own_weights(trained, frames):
    images = frames("validation")[0][:2]
    network = fake_quantized(copy.deepcopy(trained))
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.fc.weight.zero_()
        other.fc.bias.fill_(1.0)
    assert torch.equal(other(images), torch.ones(2, 6))
    assert not torch.equal(network(images), other(images))


def test_other_bits_are_refused():
    with pytest.raises(ValueError, match="7 or 8 bits, not 4"):
        fake_quantized(nn.Linear(2, 2), weight_bits=4)


def test_gradients_pass_the_rounding():
    layer = fake_quantized(nn.Linear(3, 2, bias=False))
    inputs = torch.rand(4, 3)
    layer(inputs).sum().backward()
    steps = np.float32(inputs.max()) / 255
    torch.testing.assert_close(layer.weight.grad, inputs.sum(dim=0).expand(2, 3), atol=4 * float(steps), rtol=0)
