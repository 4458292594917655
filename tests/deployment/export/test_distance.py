from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from monai_fetalkd.deployment.export.distance import FrameDistance, fit_distance
from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.networks import student_resnet


def test_the_distance_is_that_of_mahalanobis():
    maps = torch.rand(40, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    described = torch.cat([maps.mean((2, 3)), maps.std((2, 3), correction=0)], dim=1)
    torch.testing.assert_close(FrameDistance.describe(maps), described)
    known, new = described[:30].double().numpy(), described[30:].double().numpy()
    covariance = np.cov(known.T)
    covariance = 0.999 * covariance + 0.001 * np.trace(covariance) / 6 * np.eye(6)
    away = new - known.mean(0)
    expected = np.sqrt(np.einsum("nd,de,ne->n", away, np.linalg.inv(covariance), away))
    found = FrameDistance("layer1", described[:30])(maps[30:])
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_frames_that_are_all_the_same_leave_a_finite_distance():
    distance = fit_distance(student_resnet(2).eval(), "layer1", [np.zeros((1, 32, 32), np.float32)] * 3)
    assert distance is not None
    assert torch.isfinite(distance(torch.rand(2, 2, 8, 8))).all()


def test_layers_of_tokens_have_no_distance():
    network = nn.Sequential(nn.Flatten(2), nn.Linear(64, 8))
    assert fit_distance(network, "0", [np.zeros((1, 8, 8), np.float32)] * 2) is None


@pytest.mark.parametrize("name", ["student.onnx", "student.int8.onnx"])
def test_an_exported_student_knows_frames_unlike_those_of_training(exported, frames, name):
    folder, content = exported
    recognizer = Recognizer(folder / name, backend="onnxruntime")
    assert recognizer.largest_distance == content["distance"]["largest"] > 0
    assert content["distance"]["layer"] == "layer1"
    bars = np.kron(np.indices((16, 16)).sum(0) % 2 * 255.0, np.ones((4, 4)))
    assert np.ptp(recognizer(bars)) < 0.1
    logits = recognizer.batch(frames("validation")[0].numpy())
    assert np.ptp(recognizer.probabilities(logits), axis=1).max() > 0.2
