from __future__ import annotations

import pickle

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_fetalkd.losses import ChannelWiseLoss, FeatureLoss


class HintWithAdapter(nn.Module):
    """A hint for a student of three channels and a teacher of five."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Conv2d(3, 5, kernel_size=1)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.adapter(student), teacher)


def features(*channels: int, batch: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, count, 4, 4, generator=generator) for count in channels]


def test_hint_agrees_with_other_code_bases(reference):
    for case in reference.family("hint"):
        loss = FeatureLoss(nn.MSELoss(reduction=case.params.get("reduction", "mean")))
        case.assert_agrees(lambda students, teachers, _, loss=loss: loss(students, teachers))


def test_layers_are_summed_by_weight():
    students, teachers = features(3, 6), features(3, 6, seed=1)
    expected = [(s - t).square().mean() for s, t in zip(students, teachers, strict=True)]
    loss = FeatureLoss(nn.MSELoss(), layer_weights=[2.0, 0.5])
    torch.testing.assert_close(loss(students, teachers), 2.0 * expected[0] + 0.5 * expected[1])
    torch.testing.assert_close(loss.per_layer(students, teachers), expected)
    torch.testing.assert_close(FeatureLoss(nn.MSELoss())(students, teachers), expected[0] + expected[1])


def test_one_pair_needs_no_list():
    (student,), (teacher,) = features(3), features(3, seed=1)
    loss = FeatureLoss(nn.L1Loss())
    assert loss(student, teacher) == loss([student], (teacher,)) == (student - teacher).abs().mean()


def test_teacher_gets_no_gradient():
    (student,), (teacher,) = features(3), features(3, seed=1)
    FeatureLoss(nn.MSELoss())(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_adapter_is_a_registered_module_that_learns():
    loss = FeatureLoss(HintWithAdapter())
    assert {name for name, _ in loss.named_parameters()} == {"loss.adapter.weight", "loss.adapter.bias"}
    loss(features(3), features(5)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in loss.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pairwise_loss_is_computed_in_float32_under_autocast(dtype):
    loss = FeatureLoss(HintWithAdapter())
    student, teacher = (feature.to(dtype) for feature in features(3) + features(5))
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(student, teacher)
    assert result.dtype == torch.float32
    expected = loss.loss(student.float(), teacher.float())
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


def test_metatensors_give_a_plain_loss_on_their_graph():
    (leaf,), (teacher,) = features(3), features(3, seed=1)
    loss = FeatureLoss(nn.MSELoss())(MetaTensor(leaf.requires_grad_() * 1), MetaTensor(teacher))
    loss.backward()
    assert type(loss) is torch.Tensor
    assert leaf.grad.abs().sum() > 0


def test_survives_a_pickle():
    loss = pickle.loads(pickle.dumps(FeatureLoss(nn.MSELoss(), layer_weights=[3.0])))
    assert loss(torch.ones(1, 2, 2), torch.zeros(1, 2, 2)) == 3.0


@pytest.mark.parametrize(("students", "teachers"), [(1, 2), (2, 1), (0, 0), (0, 1)])
def test_unequal_or_no_layers_are_refused(students, teachers):
    with pytest.raises(ValueError, match=f"{students} and {teachers}"):
        FeatureLoss(nn.MSELoss())(features(*[3] * students), features(*[3] * teachers))


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 1.0, 1.0]])
def test_wrong_number_of_weights_is_refused(weights):
    with pytest.raises(ValueError, match=f"one weight for each layer, got {len(weights)} for 2"):
        FeatureLoss(nn.MSELoss(), layer_weights=weights)(features(3, 6), features(3, 6))


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_impossible_weight_is_refused(weight):
    with pytest.raises(ValueError, match="finite and not negative"):
        FeatureLoss(nn.MSELoss(), layer_weights=[1.0, weight])


def test_unequal_batches_are_refused():
    with pytest.raises(ValueError, match=r"same batch, got \(1, 3, 4, 4\) and \(2, 3, 4, 4\)"):
        FeatureLoss(HintWithAdapter())(features(3, batch=1), features(3, batch=2))


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()])
def test_elementwise_loss_does_not_broadcast(loss):
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3, 4, 4\) and \(2, 1, 4, 4\)"):
        FeatureLoss(loss)(features(3), features(1))


def test_loss_without_reduction_is_refused():
    with pytest.raises(ValueError, match=r"must be a scalar, got shape \(2, 3, 4, 4\)"):
        FeatureLoss(nn.MSELoss(reduction="none"))(features(3), features(3))


class SeesLabel(nn.Module):
    uses_label = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        self.seen.append(label)
        return (student - teacher).square().mean()


@pytest.mark.parametrize("channel", [False, True])
def test_a_loss_that_says_so_is_given_the_label_at_the_size_of_each_feature(channel):
    label = torch.arange(2 * 7 * 8).reshape(2, 7, 8)
    label = label[:, None] if channel else label
    loss = SeesLabel()
    students = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 3)]
    FeatureLoss(loss)(students, students, label=label)
    for student, seen in zip(students, loss.seen, strict=True):
        rows, columns = (
            [index * old // new for index in range(new)]
            for old, new in zip(label.shape[-2:], student.shape[2:], strict=True)
        )
        assert torch.equal(seen, label[..., rows, :][..., columns])


def test_a_label_that_is_missing_is_asked_for():
    with pytest.raises(ValueError, match="label is missing, which SeesLabel uses"):
        FeatureLoss(SeesLabel())(features(3), features(3))


def test_a_layout_is_brought_to_channels_first_for_any_loss():
    (student,), (teacher,) = features(3), features(3, seed=1)
    expected = FeatureLoss(ChannelWiseLoss())(student, teacher)
    last = FeatureLoss(ChannelWiseLoss())(student.movedim(1, -1), teacher.movedim(1, -1), "channels_last")
    torch.testing.assert_close(last, expected)
    tokens = [values.flatten(2).transpose(1, 2) for values in (student, teacher)]
    torch.testing.assert_close(FeatureLoss(ChannelWiseLoss())(*tokens, [4, 4]), expected)
