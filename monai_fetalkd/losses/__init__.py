"""Distillation losses: pure functions of tensors that know nothing of engines or files."""

from __future__ import annotations

from monai_fetalkd.losses.attention_transfer import AttentionTransferLoss
from monai_fetalkd.losses.distillation import DistillationLoss
from monai_fetalkd.losses.feature import FeatureLoss
from monai_fetalkd.losses.label import LabelLoss
from monai_fetalkd.losses.soft_target import SigmoidSoftTargetLoss, SoftTargetLoss

__all__ = [
    "AttentionTransferLoss",
    "DistillationLoss",
    "FeatureLoss",
    "LabelLoss",
    "SigmoidSoftTargetLoss",
    "SoftTargetLoss",
]
