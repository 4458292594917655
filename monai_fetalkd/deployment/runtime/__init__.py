"""The torch-free runtime: an exported network and what its frames go through, on a machine without torch and MONAI."""

from __future__ import annotations

from .preprocessing import Preprocessing
from .recognizer import Recognizer
from .segmenter import Segmenter, is_segmentation
from .shipped import SHIPPED_STUDENT

__all__ = ["SHIPPED_STUDENT", "Preprocessing", "Recognizer", "Segmenter", "is_segmentation"]
