"""What a frozen teacher says of each view of each frame, computed once and then read from disk."""

from __future__ import annotations

from .layout import TargetLayout
from .store import TargetStore
from .targets import StoredTeacher, TeacherTargets
from .views import FixedViews

__all__ = ["FixedViews", "StoredTeacher", "TargetLayout", "TargetStore", "TeacherTargets"]
