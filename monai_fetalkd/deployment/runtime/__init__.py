"""The torch-free runtime: an exported network and what its frames go through, on a machine without torch and MONAI."""

from __future__ import annotations

from .preprocessing import Preprocessing
from .recognizer import Recognizer
from .segmenter import Segmenter, is_segmentation

__all__ = ["Preprocessing", "Recognizer", "Segmenter", "is_segmentation"]
