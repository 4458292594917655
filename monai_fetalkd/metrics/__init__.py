"""Metrics for ignite and MONAI engines."""

from __future__ import annotations

from .scores import ClassificationScores

__all__ = ["ClassificationScores"]
