"""What a frozen teacher says of each view of each frame, computed once and then read from disk."""

from __future__ import annotations

from .layout import TargetLayout
from .store import TargetStore
from .targets import StoredTargets, Targets, TeacherTargets
from .views import FixedViews

__all__ = ["FixedViews", "StoredTargets", "TargetLayout", "TargetStore", "Targets", "TeacherTargets"]
