"""Frames, datalists and their check, datasets, and the phantom."""

from __future__ import annotations

from .annotations import annotated_rows, parse_annotation, read_annotation
from .bad_frames import BadFrames
from .datalist import class_names_of, load_datalist
from .dataset import FrameDataset, FrameStream, PersistentFrameDataset, frame_dataset
from .phantom import PLANE_NAMES, make_phantom, phantom_frame

__all__ = [
    "PLANE_NAMES",
    "BadFrames",
    "FrameDataset",
    "FrameStream",
    "PersistentFrameDataset",
    "annotated_rows",
    "class_names_of",
    "frame_dataset",
    "load_datalist",
    "make_phantom",
    "parse_annotation",
    "phantom_frame",
    "read_annotation",
]
