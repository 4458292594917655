"""The dictionary transform that reads frames."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from monai_fetalkd.ultrasound.frames import read_frame
from monai_fetalkd.utils.traits import FileReaderTrait

__all__ = ["LoadFramed"]


class LoadFramed(MapTransform, FileReaderTrait):
    """Read a path as a grey frame, whatever kind of file it is.

    Other than MONAI's ``LoadImaged``, the same anatomy gives the same tensor from every kind of file: one channel, rows
    from top to bottom, levels from 0 to 255. See :func:`monai_fetalkd.ultrasound.frames.read_frame` for what is read.

    The frame is a ``MetaTensor`` of shape (1, height, width), float32. Its ``meta`` holds ``filename_or_obj`` (the
    path, with ``#frame=12`` for one of several), ``frame`` (its index), and, where the file tells, ``frame_time``
    (milliseconds since the first frame of its cine) and ``region`` (top, left, bottom, right of the B-mode picture).

    Args:
        keys: the keys of the paths.
        frame_key: key of the frame's index, taken out of the row; a row without it means the only frame of a file.
        allow_missing_keys: whether a row may lack some of the keys.

    Raises:
        FileNotFoundError: by the call, when there is no such file.
        monai_fetalkd.ultrasound.frames.FrameError: by the call, when it cannot be read.
        TypeError: by the call, when the value is no path.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.arange(480).reshape(20, 24).astype(np.uint8)).save(f"{folder}/a.png")
        ...     row = LoadFramed("image")({"image": f"{folder}/a.png", "label": 2})
        >>> row["image"].shape, row["image"].dtype, row["label"]
        (torch.Size([1, 20, 24]), torch.float32, 2)
    """

    def __init__(self, keys: KeysCollection, frame_key: str = "frame", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.frame_key = frame_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the frames of one row."""
        row = dict(data)
        for key in self.key_iterator(row):
            row[key] = self._load(row[key], key, row.get(self.frame_key))
        row.pop(self.frame_key, None)  # it is in the metadata now; rows with and without it go into one batch
        return row

    def _load(self, path: Any, key: Hashable, number: int | None) -> MetaTensor:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"The value of '{key}' must be the path of a frame, not a {type(path).__name__}.")
        frame = read_frame(path, number)
        name = os.fspath(path)
        meta: dict[str, Any] = {
            ImageMetaKey.FILENAME_OR_OBJ: name if number is None else f"{name}#frame={number}",
            "frame": frame.number,
        }
        if frame.time is not None:
            meta["frame_time"] = frame.time
        if frame.region is not None:
            meta["region"] = frame.region
        return MetaTensor(torch.from_numpy(frame.pixels)[None], meta=meta)
