"""What a frozen teacher says of each view of a frame or of whole volumes, computed once and then read from disk."""

from __future__ import annotations

from .layout import TargetLayout
from .soft_label_teacher import SoftLabelTeacher
from .soft_labels import SoftLabeld, with_soft_labels
from .store import TargetStore
from .targets import StoredTeacher, TeacherTargets
from .views import FixedViews

__all__ = [
    "FixedViews",
    "SoftLabelTeacher",
    "SoftLabeld",
    "StoredTeacher",
    "TargetLayout",
    "TargetStore",
    "TeacherTargets",
    "with_soft_labels",
]
