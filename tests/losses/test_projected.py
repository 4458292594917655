from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_fetalkd.losses import ChannelWiseLoss, FeatureLoss, IntraClassLoss, ProjectedLoss


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_features_of_another_width_are_compared_after_a_convolution(dims):
    size = (4, 3, 2)[:dims]
    student, teacher = torch.rand(2, 3, *size), torch.rand(2, 5, *size)
    loss = ProjectedLoss(nn.MSELoss(), student_channels=3, teacher_channels=5, spatial_dims=dims)
    weight, bias = loss.projector.weight.flatten(1), loss.projector.bias
    projected = torch.einsum("ncp,kc->nkp", student.flatten(2), weight) + bias[:, None]
    torch.testing.assert_close(loss(student, teacher), nn.functional.mse_loss(projected, teacher.flatten(2)))


def test_the_projector_is_trained_and_kept():
    loss = FeatureLoss(ProjectedLoss(ChannelWiseLoss(), 3, 5))
    assert set(loss.state_dict()) == {"loss.projector.weight", "loss.projector.bias"}
    generator = torch.Generator().manual_seed(0)
    student, mixture = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(5, 3, generator=generator)
    teacher = torch.einsum("nchw,kc->nkhw", student, mixture)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(student, teacher)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_projected_in_float32(dtype):
    loss = ProjectedLoss(ChannelWiseLoss(), 3, 5)
    student, teacher = torch.rand(2, 3, 4, 4).to(dtype), torch.rand(2, 5, 4, 4).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    torch.testing.assert_close(value, loss(student.float(), teacher.float()), rtol=1e-6, atol=0)


def test_it_uses_the_label_if_its_loss_does():
    assert ProjectedLoss(IntraClassLoss(2), 3, 5).uses_label
    assert not ProjectedLoss(ChannelWiseLoss(), 3, 5).uses_label


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 4, 4, 4), (2, 5, 4, 4)), ((2, 3, 4, 4), (2, 6, 4, 4)), ((2, 3, 4), (2, 5, 4))]
)
def test_features_of_another_shape_are_refused(student, teacher):
    with pytest.raises(ValueError, match=r"3 channels .* 5 of the teacher in 2 .*got \(2, "):
        ProjectedLoss(nn.MSELoss(), 3, 5)(torch.zeros(student), torch.zeros(teacher))


@pytest.mark.parametrize("arguments", [(3, 5, 4), (3, 5, 0), (0, 5), (3, 0)])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="spatial_dims must be 1, 2 or 3"):
        ProjectedLoss(nn.MSELoss(), *arguments)
