from __future__ import annotations

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceFocalLoss, DiceLoss, LocalNormalizedCrossCorrelationLoss
from torch import nn

from monai_fetalkd.bundle.distil.heads import head_of, label_loss_of
from monai_fetalkd.losses import DistillationLoss

LOGITS = torch.zeros(1, 3, 4, 4)


@pytest.mark.parametrize(
    ("loss", "head"),
    [
        (nn.CrossEntropyLoss(reduction="sum"), "softmax"),
        (DiceLoss(softmax=True), "softmax"),
        (DiceCELoss(softmax=True), "softmax"),
        (DiceFocalLoss(softmax=True), "softmax"),
        (DeepSupervisionLoss(DiceCELoss(softmax=True)), "softmax"),
        (DiceLoss(sigmoid=True), "sigmoid"),
        (nn.BCEWithLogitsLoss(), "sigmoid"),
        (nn.L1Loss(), "values"),
        (DeepSupervisionLoss(nn.MSELoss()), "values"),
    ],
)
def test_the_loss_tells_the_head(loss, head):
    assert head_of(loss, LOGITS) == head


@pytest.mark.parametrize(
    ("loss", "output", "names"),
    [
        (DiceLoss(), LOGITS, "DiceLoss"),  # of a network that has activated its output itself
        (LocalNormalizedCrossCorrelationLoss(spatial_dims=2), LOGITS, "LocalNormalizedCrossCorrelationLoss"),
        (nn.CrossEntropyLoss(), {"nuclei": LOGITS, "types": LOGITS}, "nuclei, types"),
        (nn.CrossEntropyLoss(), (LOGITS, LOGITS), "tuple"),
        (nn.CrossEntropyLoss(), LOGITS[:, :1], "one channel"),
    ],
)
def test_what_cannot_be_distilled_is_refused_with_the_reason(loss, output, names):
    with pytest.raises(ValueError, match=names):
        head_of(loss, output)


def test_the_loss_on_labels_is_that_inside_a_distillation_loss():
    inner = DiceLoss(sigmoid=True)
    assert label_loss_of(DistillationLoss(label_loss=inner)) is inner
    assert label_loss_of(inner) is inner
