"""Datalists, the dataset of frames, and the phantom."""

from __future__ import annotations

from .datalist import load_datalist
from .dataset import FrameDataset
from .phantom import PLANE_NAMES, make_phantom, phantom_frame

__all__ = ["PLANE_NAMES", "FrameDataset", "load_datalist", "make_phantom", "phantom_frame"]
