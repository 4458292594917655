"""Distillation losses: pure functions of tensors that know nothing of engines or files."""

from __future__ import annotations

from monai_fetalkd.losses.attention_transfer import AttentionTransferLoss
from monai_fetalkd.losses.channel_wise import ChannelWiseLoss
from monai_fetalkd.losses.decoupled import DecoupledLoss
from monai_fetalkd.losses.dist import DISTLoss
from monai_fetalkd.losses.distillation import DistillationLoss
from monai_fetalkd.losses.feature import FeatureLoss
from monai_fetalkd.losses.intra_class import IntraClassLoss
from monai_fetalkd.losses.label import LabelLoss
from monai_fetalkd.losses.projected import ProjectedLoss
from monai_fetalkd.losses.region_affinity import RegionAffinityLoss
from monai_fetalkd.losses.similarity import SimilarityPreservingLoss
from monai_fetalkd.losses.soft_dice import SoftDiceLoss
from monai_fetalkd.losses.soft_target import SigmoidSoftTargetLoss, SoftTargetLoss

__all__ = [
    "AttentionTransferLoss",
    "ChannelWiseLoss",
    "DISTLoss",
    "DecoupledLoss",
    "DistillationLoss",
    "FeatureLoss",
    "IntraClassLoss",
    "LabelLoss",
    "ProjectedLoss",
    "RegionAffinityLoss",
    "SigmoidSoftTargetLoss",
    "SimilarityPreservingLoss",
    "SoftDiceLoss",
    "SoftTargetLoss",
]
