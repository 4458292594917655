"""Random rotation, zoom and shift of the anatomy inside a sector that stays where it is.

For a left-right flip take MONAI's ``RandFlipd("image", spatial_axis=1)``: the probe may be held either way round. Put
it last, then the sector need not be flipped along. There is no up-down flip: the probe is on top, and attenuation, time
gain, shadows behind bone and enhancement behind fluid all run downwards. A scanner never shows the flipped frame.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from torch import Tensor
from torch.nn import functional

from monai_fetalkd.ultrasound.transforms.base import RandFrameTransformd, sector_mask, span

__all__ = ["RandSectorAffined"]


class RandSectorAffined(RandFrameTransformd):
    r"""Random rotation, zoom and shift of what a sector shows; its outline stays.

    About the centre :math:`c` of the sector's bounding box, the anatomy at :math:`x` moves to
    :math:`c + z R_\varphi (x - c) + t`, interpolated linearly (one sampling for all three). The outline of a fan is the
    probe's and does not move with the fetus, so the result is cut with the sector. Where the moved sector leaves a part
    of it empty, the frame keeps what it showed there: a black or mirrored wedge at the edge, of a width that gives the
    angle away, is what a scanner never shows.

    MONAI's ``RandAffined`` moves the outline along with the anatomy, and takes more than twice the time.

    Args:
        keys: keys of the frames, (1, H, W).
        mask_key: key of the sector's mask, (1, H, W); an item without it is all sector.
        prob: probability that an item is transformed.
        rotate: largest angle in degrees, either way round.
        zoom: least and largest zoom; above 1, the anatomy grows.
        shift: largest shift along each axis, either way, as a share of the sector's bounding box.
        allow_missing_keys: whether an item may lack a key.

    Example:
        >>> transform = RandSectorAffined("image", prob=1.0, zoom=(2.0, 2.0), rotate=0.0, shift=0.0)
        >>> transform({"image": torch.eye(4)[None]})["image"]
        tensor([[[0.6250, 0.5625, 0.1875, 0.0000],
                 [0.5625, 0.6250, 0.3750, 0.1875],
                 [0.1875, 0.3750, 0.6250, 0.5625],
                 [0.0000, 0.1875, 0.5625, 0.6250]]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str = "sector",
        prob: float = 0.8,
        rotate: float = 15.0,
        zoom: tuple[float, float] = (0.9, 1.2),
        shift: float = 0.05,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys)
        self.mask_key = mask_key
        self.rotate = rotate
        self.zoom = zoom
        self.shift = shift

    def draw(self, height: int, width: int) -> None:
        """Draw angle, zoom and shift."""
        self._angle = math.radians(self.R.uniform(-self.rotate, self.rotate))
        self._zoom = self.R.uniform(*self.zoom)
        self._shift = self.R.uniform(-self.shift, self.shift, 2)

    def apply(self, frame: Tensor, item: Mapping[Hashable, Any]) -> Tensor:
        """Move the frame together with its sector, lay it over the frame as it was, and cut out the sector."""
        mask = sector_mask(item, self.mask_key, frame)
        layers = torch.stack((frame, mask), 1)
        moved, cover = functional.grid_sample(layers, self._grid(mask[0]), align_corners=False)[0].unsqueeze(1)
        # frames are 0 outside the sector, so that what was moved is already weighted by its cover
        return (frame * (1 - cover)).add_(moved).mul_(mask).clamp_(0, 1)

    def _grid(self, mask: Tensor) -> Tensor:
        """Where each pixel of the result lies in the frame, (1, H, W, 2), from -1 to 1 over the frame."""
        height, width = mask.shape
        (top, bottom), (left, right) = span(mask.amax(1)), span(mask.amax(0))
        middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
        x = torch.arange(width) + 0.5 - middle_x - self._shift[0] * (right - left)
        y = torch.arange(height)[:, None] + 0.5 - middle_y - self._shift[1] * (bottom - top)
        cosine, sine = math.cos(self._angle) / self._zoom, math.sin(self._angle) / self._zoom
        # two sums of a row and a column: a tenth of the time of torch's affine_grid
        source_x = (2 / width * (cosine * x + middle_x) - 1) + 2 / width * sine * y
        source_y = (2 / height * (cosine * y + middle_y) - 1) - 2 / height * sine * x
        return torch.stack((source_x, source_y), -1)[None]
