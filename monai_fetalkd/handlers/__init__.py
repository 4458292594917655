"""What plugs into MONAI's engines and MONAI does not have already."""

from __future__ import annotations

from .checkpoint import StageCheckpoint, WeightsLoader, forget_stages
from .global_batch import GlobalBatch
from .loss import NonFiniteLossGuard, loss_parts
from .progress import ProgressLogger
from .seed import EpochSeeder
from .stage import TrainingStage
from .weights import LossWeightSchedule

__all__ = [
    "EpochSeeder",
    "GlobalBatch",
    "LossWeightSchedule",
    "NonFiniteLossGuard",
    "ProgressLogger",
    "StageCheckpoint",
    "TrainingStage",
    "WeightsLoader",
    "forget_stages",
    "loss_parts",
]
