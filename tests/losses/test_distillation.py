from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceLoss
from torch import nn
from torch.nn.functional import cross_entropy

from monai_fetalkd.losses import (
    AttentionTransferLoss,
    ChannelWiseLoss,
    DecoupledLoss,
    DistillationLoss,
    DISTLoss,
    FeatureLoss,
    LabelLoss,
    RegionAffinityLoss,
    SigmoidSoftTargetLoss,
    SoftDiceLoss,
    SoftTargetLoss,
)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


STUDENT, TEACHER = randn(2, 4, 6)  # four frames, six classes
LABEL = torch.tensor([0, 5, 2, 2])
STUDENT_FEATURES, TEACHER_FEATURES = randn(2, 2, 4, 3, 5, 5)  # two layers each


def refuse(*_: object) -> torch.Tensor:
    raise AssertionError("a part of weight 0 must not be computed")


def test_agrees_with_other_code_bases_whatever_they_call_alpha(reference):
    for case in reference.family("kd+ce"):
        alpha, temperature = case.params["alpha"], case.params.get("T") or case.params["temperature"]
        alpha_weighs_labels = "temperature" in case.params  # torchdistill; the other names it T
        ce_weight = alpha if alpha_weighs_labels else 1 - alpha
        loss = DistillationLoss(ce_weight, 1 - ce_weight, temperature)
        case.assert_agrees(lambda students, teachers, label, loss=loss: loss(students[0], teachers[0], label)["loss"])


def test_parts_are_reported_unweighted_and_summed_by_weight():
    loss = DistillationLoss(
        ce_weight=0.5,
        kd_weight=2.0,
        temperature=3.0,
        feature_losses={"at": AttentionTransferLoss(), "hint": nn.MSELoss()},
        feature_weights={"at": 10.0},
    )
    student = STUDENT.clone().requires_grad_()
    parts = loss(student, TEACHER, LABEL, list(STUDENT_FEATURES), list(TEACHER_FEATURES))
    expected = {
        "ce": cross_entropy(STUDENT, LABEL),
        "kd": SoftTargetLoss(3.0)(STUDENT, TEACHER),
        "at": AttentionTransferLoss()(list(STUDENT_FEATURES), list(TEACHER_FEATURES)),
        "hint": FeatureLoss(nn.MSELoss())(list(STUDENT_FEATURES), list(TEACHER_FEATURES)),
    }
    total = 0.5 * expected["ce"] + 2.0 * expected["kd"] + 10.0 * expected["at"] + expected["hint"]
    torch.testing.assert_close(parts, {"loss": total, **expected}, check_stride=False)
    assert [name for name, part in parts.items() if part.requires_grad] == ["loss"]


def test_gradient_agrees_with_finite_differences():
    loss = DistillationLoss(0.3, 0.7, feature_losses={"at": AttentionTransferLoss()}, feature_weights={"at": 5.0})
    assert torch.autograd.gradcheck(
        lambda logits, feature: loss(logits, TEACHER, LABEL, feature, TEACHER_FEATURES[0])["loss"],
        (STUDENT.clone().requires_grad_(), STUDENT_FEATURES[0].clone().requires_grad_()),
        fast_mode=True,
    )


def test_teacher_gets_no_gradient():
    logits, feature = TEACHER.clone().requires_grad_(), TEACHER_FEATURES[0].clone().requires_grad_()
    loss = DistillationLoss(feature_losses={"hint": nn.MSELoss()})
    loss(STUDENT.clone().requires_grad_(), logits, LABEL, STUDENT_FEATURES[0], feature)["loss"].backward()
    assert logits.grad is None
    assert feature.grad is None


def test_labels_alone():
    parts = DistillationLoss(kd_weight=0)(STUDENT, None, LABEL)
    assert parts.keys() == {"loss", "ce"}
    torch.testing.assert_close(parts["loss"], cross_entropy(STUDENT, LABEL))


def test_soft_targets_alone():
    parts = DistillationLoss(ce_weight=0)(STUDENT, TEACHER)
    assert parts.keys() == {"loss", "kd"}


def test_first_stage_needs_neither_labels_nor_logits_of_the_teacher():
    loss = DistillationLoss(ce_weight=0, kd_weight=0, feature_losses={"at": AttentionTransferLoss()})
    parts = loss(STUDENT, None, None, STUDENT_FEATURES[0], TEACHER_FEATURES[0])
    assert parts.keys() == {"loss", "at"}
    assert parts["loss"] == parts["at"] > 0


def test_part_of_weight_zero_is_not_computed():
    loss = DistillationLoss(ce_weight=0, feature_losses={"at": refuse}, feature_weights={"at": 0}, label_loss=refuse)
    assert loss(STUDENT, TEACHER).keys() == {"loss", "kd"}


def test_weights_may_follow_a_schedule():
    loss = DistillationLoss(kd_weight=1.0)
    before = loss(STUDENT, TEACHER, LABEL)
    loss.weights["kd"] = 0.25
    after = loss(STUDENT, TEACHER, LABEL)
    torch.testing.assert_close(after["loss"], before["ce"] + 0.25 * before["kd"])


@pytest.mark.parametrize("label_shape", [(2, 4, 4), (2, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_labels_of_voxels_come_with_or_without_a_channel(label_shape, dtype):
    logits, label = randn(2, 3, 4, 4), torch.arange(32).reshape(2, 4, 4) % 3
    parts = DistillationLoss(kd_weight=0)(logits, None, label.reshape(label_shape).to(dtype))
    torch.testing.assert_close(parts["ce"], cross_entropy(logits, label))


def test_labels_of_frames_come_with_or_without_a_channel():
    loss = DistillationLoss(kd_weight=0)
    assert loss(STUDENT, None, LABEL[:, None])["ce"] == loss(STUDENT, None, LABEL)["ce"]


def test_any_loss_of_monai_serves_for_labels():
    logits, label = randn(2, 3, 4, 4), torch.arange(32).reshape(2, 1, 4, 4) % 3
    dice = DiceCELoss(to_onehot_y=True, softmax=True)
    parts = DistillationLoss(kd_weight=0, label_loss=dice)(logits, None, label)
    torch.testing.assert_close(parts["ce"], dice(logits, label))


@pytest.mark.parametrize("label_loss", [DiceLoss(sigmoid=True, squared_pred=True), nn.BCEWithLogitsLoss(), nn.L1Loss()])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_maps_as_labels_are_given_in_the_type_of_the_logits(label_loss, dtype):
    logits = randn(2, 3, 4, 4)
    label = logits > 0.5
    parts = DistillationLoss(kd_weight=0, label_loss=label_loss)(logits, None, label.to(dtype))
    torch.testing.assert_close(parts["ce"], label_loss(logits, label.to(logits)))


def test_learnable_adapter_is_registered():
    class Hint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.adapter = nn.Conv2d(3, 3, kernel_size=1, dtype=torch.float64)

        def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
            return (self.adapter(student) - teacher).square().mean()

    loss = DistillationLoss(feature_losses={"hint": Hint()})
    loss(STUDENT, TEACHER, LABEL, STUDENT_FEATURES[0], TEACHER_FEATURES[0])["loss"].backward()
    weight, bias = loss.parameters()
    assert weight.grad.abs().sum() > 0
    assert bias.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_under_autocast(dtype):
    def label_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return (logits @ logits.mT).trace()  # a product that autocast would lower

    loss = DistillationLoss(feature_losses={"at": AttentionTransferLoss()}, label_loss=label_loss)
    tensors = [tensor.to(dtype) for tensor in (STUDENT, TEACHER, STUDENT_FEATURES[0], TEACHER_FEATURES[0])]
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(tensors[0], tensors[1], LABEL, *tensors[2:])
    double = [tensor.double() for tensor in tensors]
    full = loss(double[0], double[1], LABEL, *double[2:])
    assert all(part.dtype == torch.float32 for part in half.values())
    torch.testing.assert_close(half, {name: part.float() for name, part in full.items()}, rtol=1e-5, atol=0)


def test_metatensors_give_plain_losses_on_their_graph():
    leaf = STUDENT.clone().requires_grad_()
    loss = DistillationLoss(feature_losses={"at": AttentionTransferLoss()})
    features = MetaTensor(STUDENT_FEATURES[0]), MetaTensor(TEACHER_FEATURES[0])
    parts = loss(MetaTensor(leaf * 1), MetaTensor(TEACHER), MetaTensor(LABEL), *features)
    parts["loss"].backward()
    assert all(type(part) is torch.Tensor for part in parts.values())
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"label": None}, "the label is missing: pass label, or set ce_weight to 0"),
        ({"target": None}, "the logits of the teacher are missing: pass target, or set kd_weight to 0"),
        ({"input_features": ()}, "the features for 'at' are missing: pass input_features and target_features"),
        ({"target_features": ()}, "the features for 'at' are missing: pass input_features and target_features"),
    ],
)
def test_missing_tensors_are_named(missing, message):
    loss = DistillationLoss(feature_losses={"at": AttentionTransferLoss()})
    tensors = {
        "target": TEACHER,
        "label": LABEL,
        "input_features": STUDENT_FEATURES[0],
        "target_features": TEACHER_FEATURES[0],
    }
    with pytest.raises(ValueError, match=message):
        loss(STUDENT, **(tensors | missing))


@pytest.mark.parametrize("label", [torch.zeros(3), torch.zeros(4, 5), torch.zeros(4, 1, 1)])
def test_labels_that_are_no_class_indices_are_refused(label):
    shapes = r"got \(" + ", ".join(map(str, label.shape)) + r",?\) and \(4, 6\)"
    with pytest.raises(ValueError, match=shapes):
        DistillationLoss(kd_weight=0)(STUDENT, None, label)


def test_labels_need_two_classes():
    with pytest.raises(ValueError, match=r"two or more classes .* got \(4, 1\)"):
        DistillationLoss(kd_weight=0)(torch.zeros(4, 1), None, torch.zeros(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_losses": {"kd": nn.MSELoss()}}, r"got \['kd'\]"),
        ({"feature_losses": {"pred": nn.MSELoss()}}, r"got \['pred'\]"),
        ({"temperature": 2.0, "soft_target_loss": SoftTargetLoss(1.0)}, "either the temperature or a soft_target_loss"),
        ({"feature_weights": {"at": 1.0}}, r"must name feature losses of \[\], got \['at'\]"),
        ({"ce_weight": -1.0}, "weights must be finite and not negative"),
        ({"kd_weight": math.nan}, "weights must be finite and not negative"),
        (
            {"feature_losses": {"at": nn.MSELoss()}, "feature_weights": {"at": math.inf}},
            "weights must be finite and not negative",
        ),
        ({"ce_weight": 0, "kd_weight": 0}, "at least one weight must be above zero"),
        ({"temperature": 0}, "temperature must be positive and finite"),
    ],
)
def test_impossible_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**arguments)


@pytest.mark.parametrize(
    ("label_loss", "soft"),
    [
        (DiceCELoss(sigmoid=True), SigmoidSoftTargetLoss(2.0)),
        (DeepSupervisionLoss(DiceCELoss(sigmoid=True)), SigmoidSoftTargetLoss(2.0)),
        (DiceCELoss(softmax=True), SoftTargetLoss(2.0)),
        (None, SoftTargetLoss(2.0)),
    ],
)
def test_soft_targets_are_of_the_head_that_the_loss_on_labels_is_of(label_loss, soft):
    student, teacher = randn(2, 2, 3, 4, 4)
    loss = DistillationLoss(temperature=2.0, ce_weight=0, label_loss=label_loss)
    torch.testing.assert_close(loss(student, teacher)["kd"], soft(student, teacher))


def test_a_loss_on_soft_targets_of_ones_own_takes_their_place():
    loss = DistillationLoss(ce_weight=0, soft_target_loss=nn.MSELoss())
    torch.testing.assert_close(loss(STUDENT, TEACHER)["kd"], nn.functional.mse_loss(STUDENT, TEACHER))


def test_a_label_that_is_ignored_has_no_soft_target():
    logits, target = randn(2, 2, 3, 4, 4)
    label = torch.arange(32).reshape(2, 1, 4, 4) % 3
    label[:, :, 2:] = 9
    loss = DistillationLoss(label_loss=LabelLoss(ignore_index=9))
    parts = loss(logits, target, label)
    torch.testing.assert_close(parts["kd"], SoftTargetLoss()(logits[:, :, :2], target[:, :, :2]))
    torch.testing.assert_close(parts["ce"], cross_entropy(logits[:, :, :2], label[:, 0, :2]))
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, 1:] = 1
    both = loss(logits, target, label, mask=mask)
    torch.testing.assert_close(both["kd"], SoftTargetLoss()(logits[:, :, 1:2], target[:, :, 1:2]))
    nothing = loss(logits, target, torch.full_like(label, 9))
    assert nothing["loss"] == 0


def test_each_head_of_deep_supervision_is_distilled():
    heads = [randn(2, 3, 8, 8), randn(2, 3, 4, 4)]
    target, label = randn(2, 2, 3, 8, 8)[1], torch.arange(128).reshape(2, 1, 8, 8) % 3
    label_loss = DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True))
    parts = DistillationLoss(label_loss=label_loss)(heads, target, label)
    averaged = nn.functional.avg_pool2d(target, 2)
    expected = SoftTargetLoss()(heads[0], target) + 0.5 * SoftTargetLoss()(heads[1], averaged)
    torch.testing.assert_close(parts["kd"], expected)
    torch.testing.assert_close(parts["ce"], label_loss([head.double() for head in heads], label.double()))


def test_each_feature_loss_compares_the_layers_that_it_names():
    features = {"layer1": (randn(2, 3, 6, 6), randn(2, 5, 6, 6)), "layer2": (randn(2, 8), randn(2, 8) + 1)}
    students, teachers = ({name: pair[side] for name, pair in features.items()} for side in (0, 1))
    losses = {
        "at": AttentionTransferLoss(layers=["layer1"]),
        "hint": FeatureLoss(nn.MSELoss(), layers=["layer2"]),
    }
    loss = DistillationLoss(ce_weight=0, kd_weight=0, feature_losses=losses)
    parts = loss(STUDENT, None, None, students, teachers)
    torch.testing.assert_close(parts["at"], AttentionTransferLoss()(*features["layer1"]))
    torch.testing.assert_close(parts["hint"], nn.functional.mse_loss(*features["layer2"]))
    with pytest.raises(ValueError, match="layer2"):
        loss(STUDENT, None, None, {"layer1": students["layer1"]}, teachers)


def test_a_loss_on_logits_that_says_so_is_given_the_label():
    loss = DistillationLoss(soft_target_loss=DecoupledLoss())
    torch.testing.assert_close(loss(STUDENT, TEACHER, LABEL)["kd"], DecoupledLoss()(STUDENT, TEACHER, LABEL))
    with pytest.raises(ValueError, match="label is missing, which DecoupledLoss uses"):
        DistillationLoss(ce_weight=0.0, soft_target_loss=DecoupledLoss())(STUDENT, TEACHER)


def test_a_loss_on_features_that_says_so_is_given_the_label():
    loss = DistillationLoss(kd_weight=0.0, feature_losses={"rad": RegionAffinityLoss(3), "hint": nn.MSELoss()})
    logits, label = randn(4, 3, 10, 10), torch.arange(400).reshape(4, 1, 10, 10) % 3
    parts = loss(logits, None, label, STUDENT_FEATURES[0], TEACHER_FEATURES[0])
    # every second row and column
    expected = RegionAffinityLoss(3)(STUDENT_FEATURES[0], TEACHER_FEATURES[0], label[..., ::2, ::2])
    torch.testing.assert_close(parts["rad"], expected)


@pytest.mark.parametrize("soft", [DecoupledLoss(), DISTLoss(), SoftDiceLoss(), ChannelWiseLoss()])
def test_each_head_has_its_own_label_and_mask(soft):
    heads, target = [randn(2, 3, 4, 4), randn(2, 3, 2, 2)], randn(2, 3, 4, 4).flip(0)
    label = torch.arange(32).reshape(2, 1, 4, 4) % 3
    mask = torch.ones(2, 4, 4)
    mask[0, :2] = 0
    loss = DistillationLoss(
        label_loss=DeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True)), soft_target_loss=soft
    )
    further = {"label": label.squeeze(1)} if getattr(soft, "uses_label", False) else {}
    first = soft(heads[0], target, **further, mask=mask)
    # the nearest to the centre of each of the coarse head's positions
    coarse = {name: values[:, 1::2, 1::2] for name, values in (further | {"mask": mask}).items()}
    second = soft(heads[1], torch.nn.functional.avg_pool2d(target, 2), **coarse)
    torch.testing.assert_close(loss(heads, target, label, mask=mask)["kd"], first + 0.5 * second)


def test_weights_that_a_schedule_sets_to_zero_are_refused():
    loss = DistillationLoss()
    loss.weights.update(ce=0.0, kd=0.0)
    with pytest.raises(ValueError, match="at least one weight"):
        loss(STUDENT, TEACHER, LABEL)


def test_a_batch_without_a_label_keeps_its_gradient_finite_under_any_weight():
    student = STUDENT.float().requires_grad_()
    loss = DistillationLoss(ce_weight=100.0, label_loss=LabelLoss(ignore_index=255))
    loss(student, TEACHER.float(), torch.full((4,), 255))["loss"].backward()
    assert student.grad.abs().max() == 0
