"""A phantom of the six standard planes of fetal ultrasound: generated frames, for trying and testing, not clinical."""

from __future__ import annotations

from .frames import PLANE_NAMES, Patient, phantom_frame
from .writer import make_phantom

__all__ = ["PLANE_NAMES", "Patient", "make_phantom", "phantom_frame"]
