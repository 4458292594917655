"""What every loss keeps to, whatever it compares."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_fetalkd.losses import (
    ChannelWiseLoss,
    DecoupledLoss,
    DISTLoss,
    FeatureLoss,
    IntraClassLoss,
    ProjectedLoss,
    RegionAffinityLoss,
    SimilarityPreservingLoss,
    SoftDiceLoss,
    SoftTargetLoss,
)

LOSSES = {
    "channel_wise": ChannelWiseLoss,
    "decoupled": DecoupledLoss,
    "dist": DISTLoss,
    "intra_class": lambda: IntraClassLoss(3),
    "region_affinity": lambda: RegionAffinityLoss(3),
    "similarity": SimilarityPreservingLoss,
    "soft_dice": SoftDiceLoss,
    "soft_jaccard": lambda: SoftDiceLoss(jaccard=True, squared=True, batch=True),
    "soft_dice_sigmoid": lambda: SoftDiceLoss(sigmoid=True),
    "standardised": lambda: SoftTargetLoss(standardise=True),
}
SIZES = [(7,), (5, 4), (4, 3, 5), (2, 3, 2, 3)]


@pytest.fixture(params=LOSSES)
def make(request) -> Callable[[], torch.nn.Module]:
    return LOSSES[request.param]


def example(size: tuple[int, ...] = (5, 4), scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher of three channels, and a label of three classes."""
    generator = torch.Generator().manual_seed(len(size))
    student, teacher = scale * torch.randn(2, 3, 3, *size, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(3, (3, *size), generator=generator)


def call(loss: torch.nn.Module, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    return loss(student, teacher, label) if getattr(loss, "uses_label", False) else loss(student, teacher)


@pytest.mark.parametrize("size", SIZES)
def test_positions_may_lie_in_any_number_of_dimensions(make, size):
    student, teacher, label = example(size)
    flat = call(make(), student.flatten(2), teacher.flatten(2), label.flatten(1))
    assert flat > 0
    torch.testing.assert_close(call(make(), student, teacher, label), flat)
    torch.testing.assert_close(call(make(), student, teacher, label[:, None].float()), flat)


def test_gradient_agrees_with_finite_differences(make):
    student, teacher, label = example((3, 2))
    assert torch.autograd.gradcheck(lambda values: call(make(), values, teacher, label), student.requires_grad_())


def test_only_the_student_gets_a_gradient(make):
    student, teacher, label = example()
    call(make(), student.requires_grad_(), teacher.requires_grad_(), label).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_agreement_costs_nothing(make):
    student, _, label = example()
    assert call(make(), student, student.clone(), label).abs() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(make, dtype, scale, autocast):
    student, teacher, label = example(scale=scale)
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = call(make(), student, teacher, label)
    value.backward()
    assert value.dtype == torch.float32
    assert student.grad.isfinite().all()
    expected = call(make(), student.detach().double(), teacher.double(), label)
    torch.testing.assert_close(value.detach().double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_tensors_give_finite_values_and_gradients(make, value):
    student, teacher, label = example()
    student = torch.full_like(student, value).float().requires_grad_()
    for other in (teacher.float(), torch.full_like(student, value)):
        loss = call(make(), student, other.detach(), label)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_metatensors_give_a_plain_loss_on_their_graph(make):
    student, teacher, label = example()
    loss = call(make(), MetaTensor(student.requires_grad_() * 1), MetaTensor(teacher), MetaTensor(label[:, None]))
    loss.backward()
    assert type(loss) is Tensor
    assert student.grad.abs().sum() > 0


def test_survives_a_pickle(make):
    example_ = example()
    torch.testing.assert_close(call(pickle.loads(pickle.dumps(make())), *example_), call(make(), *example_))


def test_unequal_batches_are_refused(make):
    student, teacher, label = example()
    with pytest.raises(ValueError, match=r"\(3, 3, 5, 4\) and \(2, 3, 5, 4\)"):
        call(make(), student, teacher[:2], label)


@pytest.mark.parametrize("name", ["channel_wise", "intra_class", "region_affinity"])
def test_maps_of_unequal_size_are_averaged_to_the_smaller_of_each_axis(name):
    student, teacher, label = example((4, 6))
    wide = teacher.repeat_interleave(3, 3)
    tall = student.repeat_interleave(2, 2)
    expected = call(LOSSES[name](), student, teacher, label)
    torch.testing.assert_close(call(LOSSES[name](), tall, wide, label), expected)
    torch.testing.assert_close(
        call(LOSSES[name](), tall, wide, label.repeat_interleave(4, 1).repeat_interleave(4, 2)), expected
    )


@pytest.mark.parametrize("name", ["channel_wise", "intra_class", "region_affinity"])
@pytest.mark.parametrize(("one", "other"), [((3, 3), (3, 3)), ((3, 3, 4), (3, 3, 4, 4))])
def test_features_that_are_no_maps_alike_are_refused(name, one, other):
    with pytest.raises(ValueError, match=f"got \\({', '.join(map(str, one))}\\) and"):
        call(LOSSES[name](), torch.zeros(one), torch.zeros(other), torch.zeros(3))


@pytest.mark.parametrize("name", ["decoupled", "dist", "soft_dice", "standardised"])
@pytest.mark.parametrize("shape", [(3, 1, 5, 4), (3, 3, 5, 3), (3, 3, 5)])
def test_logits_of_another_shape_are_refused(name, shape):
    student, _, label = example()
    with pytest.raises(ValueError, match=r"got \(3, 3, 5, 4\) and \(" + ", ".join(map(str, shape))):
        call(LOSSES[name](), student, torch.zeros(shape), label)


@pytest.mark.parametrize("name", ["decoupled", "dist", "soft_dice", "standardised"])
def test_one_class_is_refused(name):
    logits = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"two or more classes .* got \(2, 1, 4, 4\)"):
        call(LOSSES[name](), logits, logits, torch.zeros(2, 4, 4))


@pytest.mark.parametrize("name", ["decoupled", "dist", "soft_dice", "channel_wise", "standardised"])
@pytest.mark.parametrize("channel", [False, True])
def test_a_mask_leaves_predictions_out(name, channel):
    student, teacher, label = example((4, 6))
    mask = torch.zeros(3, 4, 6, dtype=torch.bool)
    mask[:, :, :4] = True
    loss = LOSSES[name]()
    further = {"label": label} if getattr(loss, "uses_label", False) else {}
    kept = {key: value[..., :4] for key, value in further.items()}
    value = loss(student.requires_grad_(), teacher, **further, mask=mask[:, None] if channel else mask)
    torch.testing.assert_close(value, loss(student[..., :4], teacher[..., :4], **kept))
    nothing = loss(student, teacher, **further, mask=torch.zeros(3, 4, 6))
    (gradient,) = torch.autograd.grad(2.0**16 * nothing, student)
    assert nothing == 0
    assert gradient.abs().max() == 0
    with pytest.raises(ValueError, match=r"the mask must have shape \(3, 4, 6\).*got \(3, 4, 5\)"):
        loss(student, teacher, **further, mask=mask[..., :5])


@pytest.mark.parametrize("name", ["decoupled", "dist", "soft_dice", "standardised", "channel_wise"])
def test_a_class_or_position_that_the_teacher_rules_out_has_probability_zero(name):
    student, teacher, label = example()
    teacher[:, 1, 0] = -torch.inf
    loss = call(LOSSES[name](), student.requires_grad_(), teacher, label)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", ["decoupled", "intra_class", "region_affinity"])
class TestLabels:
    def test_a_label_that_is_no_class_belongs_to_none(self, name):
        student, teacher, label = example()
        for ignored in (255, -1, 3):
            changed = label.clone()
            changed[:, :2] = ignored
            torch.testing.assert_close(
                call(LOSSES[name](), student, teacher, changed),
                call(LOSSES[name](), student, teacher, torch.where(changed == ignored, 255, label)),
            )
        student.requires_grad_()
        nothing = call(LOSSES[name](), student, teacher, torch.full_like(label, 255))
        nothing.backward()
        assert nothing == 0
        assert student.grad.abs().max() == 0

    def test_a_label_with_a_fraction_is_refused(self, name):
        student, teacher, label = example()
        with pytest.raises(ValueError, match=r"one is 1\.5"):
            call(LOSSES[name](), student, teacher, torch.full(label.shape, 1.5))

    def test_a_one_hot_label_is_refused(self, name):
        student, teacher, _ = example()
        with pytest.raises(ValueError, match=r"argmax.* got \(3, 2, 5, 4\) and \(3, 3, 5, 4\)"):
            call(LOSSES[name](), student, teacher, torch.zeros(3, 2, 5, 4))

    def test_a_label_of_images_is_refused(self, name):
        student, teacher, _ = example()
        with pytest.raises(ValueError, match=r"got \(3,\) and \(3, 3, 5, 4\)"):
            call(LOSSES[name](), student, teacher, torch.zeros(3))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("decoupled", "dist", "standardised")])
def test_takes_its_place_in_a_feature_loss_of_a_projected_feature(name):
    student, teacher, label = (values.float() if values.is_floating_point() else values for values in example((4, 6)))
    projected = ProjectedLoss(LOSSES[name](), student_channels=3, teacher_channels=3)
    value = FeatureLoss(projected)(student, teacher, label=label.repeat_interleave(2, 1))
    value.backward()
    torch.testing.assert_close(value, call(LOSSES[name](), projected.projector(student), teacher, label))
    assert projected.projector.weight.grad.abs().sum() > 0
