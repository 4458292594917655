"""Resizing without distortion."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn import functional

from monai_fetalkd.utils.tensor import plain

__all__ = ["Letterboxd"]


class Letterboxd(MapTransform):
    """Resize frames to fit into a size, as high to wide as they were, with black around.

    A larger frame is shrunk by averaging over the area of each new pixel, a smaller one is enlarged linearly. Larger
    frames become in a square what MONAI's ``Resized(size_mode="longest", mode="area")`` and ``SpatialPadd`` make of
    them, in half the time; the size here may be any.

    Args:
        keys: keys of the frames: ``(C, H, W)``. They become float32 of shape ``(C, *spatial_size)`` and keep their
            metadata.
        spatial_size: height and width in pixels.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: when the size is not a height and a width of at least one pixel; by the call, when a frame is not
            ``(C, H, W)``.

    Example:
        >>> import torch
        >>> frame = Letterboxd("image", (4, 4))({"image": torch.ones(1, 2, 8)})["image"]
        >>> frame[0, :, 0]
        tensor([0., 1., 0., 0.])
    """

    def __init__(self, keys: KeysCollection, spatial_size: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(spatial_size) != 2 or min(spatial_size) < 1:
            raise ValueError(f"The size of a frame is its height and width in pixels, not {tuple(spatial_size)}.")
        self.spatial_size = tuple(spatial_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize the frames of an item."""
        item = dict(data)
        for key in self.key_iterator(item):
            frame = item[key]
            if frame.ndim != 3:
                raise ValueError(f"A frame is (C, H, W), but '{key}' is {tuple(frame.shape)}.")
            resized = self._fit(plain(frame).float())
            item[key] = MetaTensor(resized, meta=frame.meta) if isinstance(frame, MetaTensor) else resized
        return item

    def _fit(self, frame: Tensor) -> Tensor:
        scale = min(new / old for new, old in zip(self.spatial_size, frame.shape[1:], strict=True))
        size = [max(1, round(scale * old)) for old in frame.shape[1:]]
        mode: dict[str, Any] = {"mode": "area"} if scale <= 1 else {"mode": "bilinear", "align_corners": False}
        resized = functional.interpolate(frame[None], size, **mode)[0]
        black = [new - old for new, old in zip(self.spatial_size, size, strict=True)]
        top, left = (side // 2 for side in black)
        return functional.pad(resized, (left, black[1] - left, top, black[0] - top))
