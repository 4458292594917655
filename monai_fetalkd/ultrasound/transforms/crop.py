"""Dictionary transforms around the scan sector: crop a frame to it, and keep its mask for what augments the frame."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_fetalkd.ultrasound.frames import crop_to_sector, find_sector
from monai_fetalkd.utils.tensor import plain

__all__ = ["CropSectord", "SectorMaskd"]


class CropSectord(MapTransform):
    """Crop frames to their scan sector and blank all around it: burned-in text, rulers and logos give classes away.

    A frame is first cropped to ``meta["region"]``, the ``(top, left, bottom, right)`` of the B-mode picture, where
    its file has told one. The sector is then found in the pixels, see
    :func:`monai_fetalkd.ultrasound.frames.find_sector`; a frame without a clear one is left whole.

    Args:
        keys: keys of the frames: ``(1, H, W)``, grey levels 0 to 255. They become float32 of shape ``(1, h, w)``, 0
            outside the sector, and keep their metadata, less the region.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: by the call, when a frame is not ``(1, H, W)``.

    Example:
        >>> frame = torch.zeros(1, 120, 160)
        >>> frame[:, 20:100, 30:130] = torch.randint(40, 200, (80, 100))  # tissue
        >>> frame[:, 5:8, 5:25] = 255  # a logo
        >>> CropSectord("image")({"image": frame})["image"].shape
        torch.Size([1, 80, 100])
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop the frames of an item."""
        item = dict(data)
        for key in self.key_iterator(item):
            frame = item[key]
            pixels = _pixels(frame, key)
            meta = dict(frame.meta) if isinstance(frame, MetaTensor) else {}
            cropped = torch.from_numpy(crop_to_sector(pixels, meta.pop("region", None))).float()[None]
            item[key] = MetaTensor(cropped, meta=meta) if isinstance(frame, MetaTensor) else cropped
        return item


class SectorMaskd(MapTransform):
    """Add the mask of the scan sector to an item, so that augmentation can keep to it.

    For frames that are cropped, blanked, resized and scaled already: one mask a frame, before the random transforms.

    Args:
        keys: key of the frame: ``(1, H, W)``, grey levels 0 to 1, with black around the sector.
        mask_key: key of the mask: a plain float32 tensor ``(1, H, W)``, 1 inside the sector and 0 outside.
        allow_missing_keys: whether an item may lack the frame.

    Raises:
        ValueError: when there is more than one key; by the call, when the frame is not ``(1, H, W)``.

    Example:
        >>> frame = torch.zeros(1, 120, 160)
        >>> frame[:, :, 30:130] = torch.randint(40, 200, (120, 100)) / 255
        >>> SectorMaskd("image")({"image": frame})["sector"].sum()
        tensor(12000.)
    """

    def __init__(self, keys: KeysCollection, mask_key: str = "sector", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"One mask belongs to one frame, but the keys are {self.keys}: pass a single key.")
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the mask of an item."""
        item = dict(data)
        for key in self.key_iterator(item):
            pixels = _pixels(item[key], key)
            sector = find_sector(255 * pixels)
            top, left, bottom, right = sector.box
            mask = torch.zeros(1, *pixels.shape)
            mask[0, top:bottom, left:right] = torch.from_numpy(sector.mask)
            item[self.mask_key] = mask
        return item


def _pixels(frame: Tensor, key: Hashable) -> np.ndarray:
    if frame.ndim != 3 or frame.shape[0] != 1:
        raise ValueError(f"A sector is found in frames (1, H, W), but '{key}' is {tuple(frame.shape)}.")
    return plain(frame)[0].numpy()
