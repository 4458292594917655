"""Metrics for ignite and MONAI engines."""

from __future__ import annotations

from .classification import ClassificationScores
from .predictions import PredictionCollector

__all__ = ["ClassificationScores", "PredictionCollector"]
