"""Frames, datalists and their check, datasets, and the phantom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_fetalkd.utils.lazy import lazy_names

from .annotations import annotated_rows, parse_annotation, read_annotation
from .datalist import class_names_of, load_datalist

if TYPE_CHECKING:
    from .bad_frames import BadFrames
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

# a datalist needs neither torch nor MONAI, which take seconds to import
__getattr__ = lazy_names(
    __name__,
    {
        "bad_frames": ["BadFrames"],
        "dataset": ["FrameDataset", "FrameStream", "PersistentFrameDataset", "frame_dataset"],
        "phantom": ["PLANE_NAMES", "make_phantom", "phantom_frame"],
    },
)
