"""What the random transforms of ultrasound frames have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from monai_fetalkd.utils.tensor import plain

__all__ = ["RandFrameTransformd", "sector_mask", "span"]

_WHITE = 1.001  # a resize rounds


class RandFrameTransformd(RandomizableTransform, MapTransform):
    """A random dictionary transform of frames: one draw an item, shared by its keys.

    Subclasses draw in :meth:`draw` and compute in :meth:`apply`. Frames are float32 (1, H, W), grey levels 0 to 1, 0
    outside the sector, and so are the results. The input is never written to, so a cache may hand out its frames
    without copying them (``copy_cache=False``).

    Args:
        keys: keys of the frames. The frames of one item have the same size.
        prob: probability that an item is transformed.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: by the call, when a frame is not float32 (1, H, W) with levels from 0 to 1.
    """

    def __init__(self, keys: KeysCollection, prob: float, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)

    @abstractmethod
    def draw(self, height: int, width: int) -> None:
        """Draw the parameters of a transform from ``self.R``, for frames of this size."""

    @abstractmethod
    def apply(self, frame: Tensor, item: Mapping[Hashable, Any]) -> Tensor:
        """Transform a frame (1, H, W), a plain tensor, without writing to it."""

    def randomize(self, data: Tensor) -> None:
        """Decide whether the item of this frame is transformed, and how."""
        super().randomize(None)
        if self._do_transform:
            self.draw(*data.shape[-2:])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform the frames of an item."""
        item = dict(data)
        for index, key in enumerate(self.key_iterator(item)):
            frame = item[key]
            self._check(frame, key)
            if index == 0:
                self.randomize(frame)
            if self._do_transform:
                result = self.apply(plain(frame), data)
                item[key] = MetaTensor(result, meta=frame.meta) if isinstance(frame, MetaTensor) else result
        return item

    def _check(self, frame: Tensor, key: Hashable) -> None:
        if frame.ndim != 3 or frame.shape[0] != 1 or frame.dtype != torch.float32 or frame.amax() > _WHITE:
            raise ValueError(
                f"{type(self).__name__} takes float32 frames (1, H, W) of levels 0 to 1, but '{key}' is "
                f"{frame.dtype} {tuple(frame.shape)} of levels up to {frame.amax():g}."
            )


def sector_mask(item: Mapping[Hashable, Any], mask_key: str, frame: Tensor) -> Tensor:
    """The sector of a frame, 1 inside and 0 outside: the item's mask, or all of the frame where it has none.

    Args:
        item: an item of a dataset.
        mask_key: key of the mask.
        frame: the frame (1, H, W).

    Returns:
        A plain float32 tensor (1, H, W).

    Raises:
        ValueError: when the mask does not fit the frame, or is empty.
    """
    if mask_key not in item:
        return torch.ones_like(frame)
    mask = plain(item[mask_key])
    if mask.shape != frame.shape or mask.amax() <= 0:
        raise ValueError(
            f"The mask '{mask_key}' of a frame {tuple(frame.shape)} must have its shape and mark its sector, but it is "
            f"{tuple(mask.shape)} with {int(mask.count_nonzero())} pixels marked."
        )
    return mask.to(frame.dtype)


def span(marked: Tensor) -> tuple[int, int]:
    """First and one past the last index of what is above 0 in a row or column.

    Example:
        >>> span(torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))
        (1, 4)
    """
    indices = marked.nonzero()
    return int(indices[0]), int(indices[-1]) + 1
