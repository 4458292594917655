from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fetalkd.losses import AttentionTransferLoss

MODES = ["sum_squared", "mean_squared", "norm"]
KINDS = ["spatial", "channel"]
SHAPES = [  # student, teacher
    pytest.param((2, 3, 5), (2, 4, 8), id="1-D"),
    pytest.param((2, 3, 4, 4), (2, 6, 4, 4), id="equal maps"),
    pytest.param((2, 3, 4, 4), (2, 6, 7, 7), id="larger teacher"),
    pytest.param((2, 6, 6, 9), (2, 4, 3, 4), id="larger student, not square"),
    pytest.param((2, 3, 5, 2), (2, 4, 3, 6), id="each larger on one axis"),
    pytest.param((2, 3, 2, 3, 4), (2, 5, 4, 3, 2), id="3-D"),
]


def random_features(student: tuple[int, ...], teacher: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (student, teacher))


def pool(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Adaptive average pooling of one axis: bin i averages floor(i n / size) to ceil((i + 1) n / size)."""
    length = values.shape[axis]
    bins = [np.arange(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
    return np.stack([values.take(chosen, axis).mean(axis) for chosen in bins], axis)


def expected_loss(student: np.ndarray, teacher: np.ndarray, mode: str, kind: str, power: float) -> float:
    """The loss as its docstring states it, without torch."""
    unit_maps = []
    for feature, other in ((student, teacher), (teacher, student)):
        if kind == "spatial":
            for axis in range(2, feature.ndim):
                feature = pool(feature, axis, min(feature.shape[axis], other.shape[axis]))
            attention = (np.abs(feature) ** power).mean(axis=1).reshape(len(feature), -1)
        else:
            attention = (np.abs(feature) ** power).mean(axis=tuple(range(2, feature.ndim)))
            attention = pool(attention, 1, min(feature.shape[1], other.shape[1]))
        unit_maps.append(attention / np.linalg.norm(attention, axis=1, keepdims=True))
    squared = (unit_maps[0] - unit_maps[1]) ** 2
    return {
        "sum_squared": squared.sum(axis=1).mean(),
        "mean_squared": squared.mean(),
        "norm": np.sqrt(squared.sum(axis=1)).mean(),
    }[mode]


@pytest.mark.parametrize(("family", "mode"), [("at", "mean_squared"), ("at-paper", "norm")])
def test_agrees_with_other_code_bases(reference, family, mode):
    for case in reference.family(family):
        loss = AttentionTransferLoss(mode, power=case.params.get("p", 2))
        case.assert_agrees(lambda students, teachers, _, loss=loss: loss(students, teachers))
        if case.layers:
            students, teachers = (
                [torch.tensor(values, dtype=torch.float64) for values in side]
                for side in (case.students, case.teachers)
            )
            np.testing.assert_allclose(loss.per_layer(students, teachers), case.layers, rtol=1e-10)


@pytest.mark.parametrize(("student", "teacher"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("power", [2.0, 3.5])
def test_value_and_gradient_for_maps_of_any_size(student, teacher, kind, mode, power):
    student, teacher = random_features(student, teacher)
    loss = AttentionTransferLoss(mode, kind, power, layout="channels_first")
    expected = expected_loss(student.numpy(), teacher.numpy(), mode, kind, power)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student.requires_grad_(), fast_mode=True)


def test_default_is_the_sum_over_spatial_positions():
    student, teacher = random_features((2, 3, 4, 5), (2, 6, 4, 5))
    mean_squared = AttentionTransferLoss("mean_squared")(student, teacher)
    torch.testing.assert_close(AttentionTransferLoss()(student, teacher), mean_squared * 4 * 5)


def test_layers_of_different_size_are_summed_by_weight():
    students, teachers = zip(
        random_features((2, 3, 8, 8), (2, 6, 8, 8)), random_features((2, 5, 4, 4), (2, 9, 4, 4)), strict=True
    )
    single = [AttentionTransferLoss()(s, t) for s, t in zip(students, teachers, strict=True)]
    loss = AttentionTransferLoss(layer_weights=[1.0, 3.0])
    torch.testing.assert_close(loss(students, teachers), single[0] + 3 * single[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [1e3, 1e-3, 1e-7, 1e-15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale_of_a_feature_does_not_matter(kind, mode, scale, dtype):
    student, teacher = (feature.to(dtype) for feature in random_features((2, 3, 4, 4), (2, 6, 4, 4)))
    loss = AttentionTransferLoss(mode, kind)
    torch.testing.assert_close(loss(scale * student, 1e-3 * teacher), loss(student, teacher))
    scaled = (scale * student).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(scaled, teacher), scaled)
    (expected,) = torch.autograd.grad(loss(student.requires_grad_(), teacher), student)
    torch.testing.assert_close(scale * gradient, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_equal_attention_costs_nothing(kind, mode):
    student, _ = random_features((2, 3, 4, 4), (2, 3, 4, 4))
    loss = AttentionTransferLoss(mode, kind)(student.requires_grad_(), student.detach().clone())
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_maps_give_no_nan(zero, kind, mode, dtype):
    student, teacher = (feature.to(dtype) for feature in random_features((2, 3, 6, 6), (2, 4, 3, 3)))
    if zero != "teacher":
        student[0] = 0
    if zero != "student":
        teacher[0] = 0
    student.requires_grad_()
    loss = AttentionTransferLoss(mode, kind)(student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    if zero != "teacher":
        assert torch.equal(student.grad[0], torch.zeros_like(student.grad[0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(dtype, scale, kind, mode, autocast):
    student, teacher = random_features((2, 3, 6, 6), (2, 4, 3, 3))
    student, teacher = (scale * student).to(dtype).requires_grad_(), (scale * teacher).to(dtype)
    loss = AttentionTransferLoss(mode, kind)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = loss(student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loss(student.double(), teacher.double()), rtol=1e-5, atol=0)
    assert student.grad.isfinite().all()


def test_teacher_gets_no_gradient():
    student, teacher = random_features((2, 3, 4, 4), (2, 6, 4, 4))
    AttentionTransferLoss()(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_metatensors_give_a_plain_loss_on_their_graph():
    leaf, teacher = random_features((2, 3, 4, 4), (2, 6, 2, 2))
    loss = AttentionTransferLoss()(MetaTensor(leaf.requires_grad_() * 1), MetaTensor(teacher))
    loss.backward()
    assert type(loss) is torch.Tensor
    torch.testing.assert_close(loss, AttentionTransferLoss()(leaf, teacher))
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_survives_a_copy(duplicate):
    student, teacher = random_features((2, 3, 4, 4), (2, 6, 2, 2))
    loss = AttentionTransferLoss("norm", "channel", power=3, layer_weights=[0.5])
    assert duplicate(loss)(student, teacher) == loss(student, teacher)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [(2, 3, 4), (2, 3, 4, 4, 4), (1, 3, 4, 4), (2, 3)])
def test_features_that_do_not_match_are_refused(kind, other):
    shapes = r"got \(2, 3, 4, 4\) and \(" + ", ".join(map(str, other))
    with pytest.raises(ValueError, match=shapes):
        AttentionTransferLoss(kind=kind)(torch.zeros(2, 3, 4, 4), torch.zeros(other))


def test_unequal_maps_of_four_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"one to three .* got \(1, 1, 2, 2, 2, 2\) and \(1, 1, 2, 2, 2, 3\)"):
        AttentionTransferLoss()(torch.zeros(1, 1, 2, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2, 3))


def attention_of_tokens(tokens):
    return torch.nn.functional.normalize(tokens.square().mean(2))


def test_three_axes_are_tokens():
    student, teacher = random_features((2, 17, 4), (2, 17, 9))
    expected = (attention_of_tokens(student) - attention_of_tokens(teacher)).square().sum(1).mean()
    torch.testing.assert_close(AttentionTransferLoss()(student, teacher), expected)
    assert AttentionTransferLoss()(student[:, torch.randperm(17)], student) > 1e-3


def test_a_grid_leaves_out_the_class_token():
    student, teacher = random_features((2, 17, 4), (2, 17, 9))
    expected = AttentionTransferLoss()(student[:, 1:], teacher[:, 1:])
    torch.testing.assert_close(AttentionTransferLoss(layout=[4, 4])(student, teacher), expected)


def test_channels_last_is_the_same_map_as_channels_first():
    student, teacher = random_features((2, 3, 4, 5), (2, 6, 4, 5))
    last = [feature.movedim(1, -1) for feature in (student, teacher)]
    expected = AttentionTransferLoss()(student, teacher)
    torch.testing.assert_close(AttentionTransferLoss(layout="channels_last")(*last), expected)


@pytest.mark.parametrize(
    ("student", "teacher", "hint"),
    [
        ((2, 16, 32), (2, 64, 32), "channels_first"),
        ((2, 7, 7, 48), (2, 7, 7, 96), "channels_last"),
        ((2, 4, 4, 4, 24), (2, 4, 4, 4, 24), "channels_last"),
        ((2, 8, 1, 1), (2, 16, 1, 1), "global pooling"),
        ((2, 8, 1, 1), (2, 16, 7, 7), "global pooling"),
        ((2, 8), (2, 8), "global pooling"),
    ],
)
def test_features_that_cannot_be_read_are_refused_with_a_hint(student, teacher, hint):
    with pytest.raises(ValueError, match=hint):
        AttentionTransferLoss()(*random_features(student, teacher))


def test_a_single_channel_has_no_attention_among_channels():
    with pytest.raises(ValueError, match="one channel"):
        AttentionTransferLoss(kind="channel")(torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "NCHW"}, "layout must be one of"),
        ({"layout": [0, 4]}, "layout must be one of"),
        ({"layers": "layer4"}, "layers must be a list"),
        ({"layers": ["a"], "layer_weights": [1.0, 2.0]}, "got 2 for 1"),
        ({"mode": "paper"}, "mode must be one of .* got 'paper'"),
        ({"kind": "temporal"}, "kind of attention map must be one of .* got 'temporal'"),
        ({"power": 0.5}, "power must be at least 1"),
        ({"layer_weights": [-1.0]}, "layer_weights must be finite and not negative"),
    ],
)
def test_impossible_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionTransferLoss(**arguments)
