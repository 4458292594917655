from __future__ import annotations

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceFocalLoss, DiceLoss, FocalLoss, TverskyLoss
from torch import nn
from torch.nn.functional import cross_entropy

from monai_fetalkd.losses import LabelLoss
from monai_fetalkd.losses.label import is_sigmoid_head


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(6, 4), (2, 4, 5, 3), (2, 4, 3, 2, 3)])
@pytest.mark.parametrize("arguments", [{}, {"label_smoothing": 0.2}, {"class_weights": [1.0, 2.0, 0.5, 0.0]}])
@pytest.mark.parametrize("ignored", [False, True])
def test_indices_and_soft_labels_cost_what_torch_says(shape, arguments, ignored):
    logits = randn(*shape)
    indices = torch.randint(4, shape[:1] + shape[2:], generator=torch.Generator().manual_seed(1))
    if ignored:
        indices[0] = 3
    weights = arguments.get("class_weights")
    settings = {
        "weight": None if weights is None else torch.tensor(weights, dtype=torch.float64),
        "label_smoothing": arguments.get("label_smoothing", 0.0),
    }
    loss = LabelLoss(**arguments, **({"ignore_index": 3} if ignored else {}))
    expected = cross_entropy(logits, indices, **settings, ignore_index=3 if ignored else -100)
    for label in (indices, indices[:, None].float()):
        torch.testing.assert_close(loss(logits, label), expected)
    soft = randn(*shape, seed=2).softmax(1)
    torch.testing.assert_close(loss(logits, soft.float()), cross_entropy(logits, soft.float().double(), **settings))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_in_which_all_is_ignored_costs_nothing(smoothing):
    logits = randn(2, 3, 4).float().requires_grad_()
    loss = LabelLoss(ignore_index=255, label_smoothing=smoothing)(logits, torch.full((2, 4), 255))
    (2.0**16 * loss).backward()  # the scale that a GradScaler starts with
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_label_with_a_fraction_is_refused():
    with pytest.raises(ValueError, match=r"one is 1\.5"):
        LabelLoss()(randn(2, 3), torch.tensor([1.0, 1.5]))


@pytest.mark.parametrize(
    ("loss", "sigmoid"),
    [
        (DiceLoss(sigmoid=True), True),
        (DiceLoss(softmax=True), False),
        (DiceCELoss(sigmoid=True), True),
        (DiceCELoss(softmax=True, to_onehot_y=True), False),
        (DiceFocalLoss(sigmoid=True), True),
        (DiceFocalLoss(softmax=True), False),
        (FocalLoss(), True),
        (FocalLoss(use_softmax=True), False),
        (TverskyLoss(sigmoid=True), True),
        (nn.BCEWithLogitsLoss(), True),
        (nn.CrossEntropyLoss(), False),
        (LabelLoss(), False),
        (DeepSupervisionLoss(DiceCELoss(sigmoid=True)), True),
        (DeepSupervisionLoss(nn.BCEWithLogitsLoss()), True),
        (DeepSupervisionLoss(DiceCELoss(softmax=True)), False),
        (lambda logits, label: logits.sum(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_head_is_what_the_loss_on_labels_says(loss, sigmoid):
    assert is_sigmoid_head(loss) is sigmoid
