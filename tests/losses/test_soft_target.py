from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fetalkd.losses import AttentionTransferLoss, LabelLoss, SigmoidSoftTargetLoss, SoftTargetLoss


def random_logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> np.ndarray:
    """T^2 * sum_c p (log p - log q), written out for logits of moderate size."""
    p, q = (np.exp(logits.numpy() / temperature) for logits in (teacher, student))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return temperature**2 * (p * np.log(p / q)).sum(axis=1)


def test_agrees_with_other_code_bases(reference):
    for case in reference.family("kd"):
        temperature = next(case.params[name] for name in ("T", "temperature", "tau") if name in case.params)
        loss = SoftTargetLoss(temperature)
        case.assert_agrees(lambda students, teachers, _, loss=loss: loss(students[0], teachers[0]))


@pytest.mark.parametrize("shape", [(5, 2), (4, 6), (2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 3, 4)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_every_reduction_of_the_divergence(shape, temperature):
    student, teacher = random_logits(*shape), random_logits(*shape, seed=1)
    expected = expected_divergence(student, teacher, temperature)
    for reduction, reduced in (("none", expected), ("mean", expected.mean()), ("sum", expected.sum())):
        result = SoftTargetLoss(temperature, reduction)(student, teacher)
        np.testing.assert_allclose(result, reduced, rtol=1e-10)


def test_each_voxel_is_one_prediction():
    student, teacher = random_logits(2, 3, 4, 5), random_logits(2, 3, 4, 5, seed=1)
    flat_student, flat_teacher = (logits.movedim(1, -1).reshape(-1, 3) for logits in (student, teacher))
    torch.testing.assert_close(SoftTargetLoss()(student, teacher), SoftTargetLoss()(flat_student, flat_teacher))


def test_gradient_agrees_with_finite_differences():
    student, teacher = random_logits(2, 3, 4).requires_grad_(), random_logits(2, 3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: SoftTargetLoss(2.0)(x, teacher), student)


def test_equal_logits_cost_nothing():
    student = random_logits(4, 6).requires_grad_()
    loss = SoftTargetLoss()(student, student.detach().clone())
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() < 1e-12


def test_teacher_gets_no_gradient():
    student, teacher = random_logits(4, 6).requires_grad_(), random_logits(4, 6, seed=1).requires_grad_()
    SoftTargetLoss()(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(dtype, scale, autocast):
    student, teacher = (random_logits(4, 6, seed=seed, scale=scale).to(dtype) for seed in (0, 1))
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = SoftTargetLoss()(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), SoftTargetLoss()(student.double(), teacher.double()), rtol=1e-5, atol=0)
    assert student.grad.isfinite().all()


def test_metatensors_give_a_plain_loss_on_their_graph():
    leaf, teacher = random_logits(4, 6).requires_grad_(), random_logits(4, 6, seed=1)
    loss = SoftTargetLoss()(MetaTensor(leaf * 1), MetaTensor(teacher))
    loss.backward()
    assert type(loss) is torch.Tensor
    torch.testing.assert_close(loss, SoftTargetLoss()(leaf, teacher))
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("other", [(4, 5), (1, 6), (4, 6, 1)])
def test_unequal_shapes_are_refused(other):
    with pytest.raises(ValueError, match=r"same shape, got \(4, 6\) and \(" + ", ".join(map(str, other))):
        SoftTargetLoss()(torch.zeros(4, 6), torch.zeros(other))


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 8, 8)])
def test_a_single_logit_is_refused(shape):
    with pytest.raises(ValueError, match="two or more classes"):
        SoftTargetLoss()(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        SoftTargetLoss(temperature)


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match=r"reduction must be one of .* got 'batchmean'"):
        SoftTargetLoss(reduction="batchmean")


def test_a_class_that_the_teacher_rules_out_has_probability_zero():
    student = random_logits(4, 3).requires_grad_()
    teacher = random_logits(4, 3, seed=1)
    teacher[0, 2] = -torch.inf
    target = (teacher / 4).softmax(1)
    expected = 16 * torch.nn.functional.kl_div((student / 4).log_softmax(1), target, reduction="batchmean")
    loss = SoftTargetLoss(4.0)(student, teacher)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("kind", [SoftTargetLoss, SigmoidSoftTargetLoss])
def test_a_class_that_both_rule_out_costs_nothing(kind):
    student, teacher = random_logits(4, 3), random_logits(4, 3, seed=1)
    student[:, 2] = teacher[:, 2] = -torch.inf
    student.requires_grad_()
    loss = kind()(student, teacher)
    assert loss.isfinite()
    loss.backward()
    assert student.grad[:, :2].isfinite().all()


@pytest.mark.parametrize("kind", [SoftTargetLoss, SigmoidSoftTargetLoss])
@pytest.mark.parametrize("channel", [False, True])
def test_a_mask_leaves_predictions_out(kind, channel):
    student, teacher = random_logits(2, 3, 4, 5), random_logits(2, 3, 4, 5, seed=1)
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[:, :2] = True
    loss = kind(2.0)(student, teacher, mask[:, None] if channel else mask)
    torch.testing.assert_close(loss, kind(2.0)(student[:, :, :2], teacher[:, :, :2]))
    student = student.float().requires_grad_()
    nothing = kind()(student, teacher, torch.zeros(2, 4, 5))
    (2.0**16 * nothing).backward()  # the scale that a GradScaler starts with
    assert nothing == 0
    assert student.grad.abs().max() == 0
    with pytest.raises(ValueError, match=r"the mask must have shape \(2, 4, 5\)"):
        kind()(student, teacher, torch.zeros(2, 4, 4))


def test_a_prediction_counts_by_the_classes_that_the_teacher_sees_in_it():
    student, teacher = random_logits(4, 3), random_logits(4, 3, seed=1)
    each = SoftTargetLoss(2.0, "none")(student, teacher)
    counts = (teacher / 2).softmax(1) @ torch.tensor([1.0, 5.0, 0.5], dtype=torch.float64)
    expected = (each * counts).sum() / counts.sum()
    torch.testing.assert_close(SoftTargetLoss(2.0, class_weights=[1.0, 5.0, 0.5])(student, teacher), expected)


@pytest.mark.parametrize("shape", [(5, 1), (4, 6), (2, 3, 4, 5), (2, 1, 3, 4, 2)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_sigmoid_heads_have_a_divergence_for_each_class(shape, temperature):
    student, teacher = random_logits(*shape).requires_grad_(), random_logits(*shape, seed=1)
    p, q = ((logits / temperature).sigmoid() for logits in (student, teacher))
    expected = temperature**2 * (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()
    loss = SigmoidSoftTargetLoss(temperature)(student, teacher)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, temperature * (p - q).detach() / student.numel())


def test_sigmoid_heads_stay_finite_far_out():
    logits = torch.tensor([[-1e4, 1e4, 300.0]], dtype=torch.float16)
    assert SigmoidSoftTargetLoss(1.0)(logits, -logits).isfinite()


@pytest.mark.parametrize("kind", [SoftTargetLoss, SigmoidSoftTargetLoss])
@pytest.mark.parametrize(("weights", "message"), [([1.0, -1.0], "not negative"), ([1.0, 1.0], "got 2 for")])
def test_class_weights_that_do_not_fit_are_refused(kind, weights, message):
    with pytest.raises(ValueError, match=message):
        kind(class_weights=weights)(random_logits(2, 3), random_logits(2, 3))


def test_standardised_logits_agree_with_other_code_bases(dense_reference, reference):
    for case in dense_reference.family("logit_std_kd") + reference.family("kd-logit-std"):
        temperature = case.params.get("tau") or case.params["temperature"]
        kd, ce = SoftTargetLoss(temperature, standardise=case.params.get("standardise", True)), LabelLoss()
        # torchdistill's value has the loss on labels in it
        alpha, beta = case.params.get("alpha", 0.0), case.params.get("beta", 1.0)
        case.assert_agrees(
            lambda students, teachers, label, kd=kd, ce=ce, alpha=alpha, beta=beta: (
                beta * kd(students[0], teachers[0]) + (alpha * ce(students[0], label) if alpha else 0.0)
            )
        )


def test_prediction_and_importance_maps_of_emkd_are_soft_targets_and_attention(dense_reference):
    for case in dense_reference.family("emkd_pmd"):
        loss, weight = SoftTargetLoss(case.params["tau"]), case.params["loss_weight"]
        case.assert_agrees(lambda s, t, _, loss=loss, weight=weight: weight * loss(s[0], t[0]))
    for case in dense_reference.family("emkd_imd"):
        loss, weight = AttentionTransferLoss(power=case.params["exponent"]), case.params["loss_weight"]
        case.assert_agrees(lambda s, t, _, loss=loss, weight=weight: weight * loss(s, t))


def test_sigmoid_heads_agree_with_the_plain_formula(dense_reference):
    for case in dense_reference.family("bernoulli_kl"):
        loss, weight = SigmoidSoftTargetLoss(case.params["tau"]), case.params["loss_weight"]
        if case.params["reduction"] == "sum_channels":
            weight *= case.students[0].shape[1]
        case.assert_agrees(lambda s, t, _, loss=loss, weight=weight: weight * loss(s[0], t[0]))


def test_standardised_logits_do_not_see_scale_and_offset():
    student, teacher = random_logits(4, 6), random_logits(4, 6, seed=1)
    loss = SoftTargetLoss(2.0, standardise=True)
    torch.testing.assert_close(loss(3 * student + 1, teacher / 5 - 2), loss(student, teacher), rtol=1e-5, atol=0)


def test_a_class_that_both_rule_out_does_not_count_in_the_standardisation():
    student, teacher = random_logits(4, 5), random_logits(4, 5, seed=1)
    loss = SoftTargetLoss(2.0, standardise=True)
    expected = loss(student[:, :4], teacher[:, :4])
    student[:, 4] = teacher[:, 4] = -torch.inf
    student.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    torch.testing.assert_close(value, expected)
    assert student.grad.isfinite().all()


def test_two_classes_cannot_be_standardised():
    with pytest.raises(ValueError, match=r"two classes .* got \(3, 2, 4, 4\)"):
        SoftTargetLoss(standardise=True)(torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, 4, 4))
