"""Metrics for ignite and MONAI engines, computed by scikit-learn."""

from __future__ import annotations

from .classification import BalancedAccuracy, MacroF1

__all__ = ["BalancedAccuracy", "MacroF1"]
