r"""Random changes of the echoes of a frame: time gain, speckle, acoustic shadows.

A B-mode frame shows the logarithm of the echo's envelope: grey levels from 0 to 1 stand for a dynamic range of
:data:`DYNAMIC_RANGE` dB. A factor on the envelope, :math:`g` in dB, is therefore an **offset** of :math:`g` / dynamic
range on the grey level :math:`p`. All three transforms are such offsets :math:`o`, applied as

.. math:: p' = \min(1,\; p + \max(-p, \min(o, p))),

that is, no level changes by more than itself. Downwards this is the display's own floor. Upwards it keeps black black:
a level of 0 lies below the floor by an unknown amount, and outside the sector there is no echo to amplify.

What MONAI has does something else to a log-compressed frame: ``RandScaleIntensityd`` changes its dynamic range,
``RandAdjustContrastd`` its grey map, and ``RandShiftIntensityd`` lightens what is outside the sector too.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.utils.misc import MAX_SEED
from torch import Tensor
from torch.nn import functional

from monai_fetalkd.ultrasound.transforms.base import RandFrameTransformd, sector_mask, span

__all__ = ["DYNAMIC_RANGE", "RandShadowd", "RandSpeckled", "RandTimeGaind"]

DYNAMIC_RANGE = 60.0  # dB between black and white, as obstetric presets have it

# of 10 log10 of an exponential variable of mean 1, the power of fully developed speckle, in dB
_SPECKLE_MEAN = -10 / math.log(10) * np.euler_gamma
_SPECKLE_STD = 10 / math.log(10) * math.pi / math.sqrt(6)


class RandTimeGaind(RandFrameTransformd):
    """Random gain and time-gain compensation: the knob and the sliders of a scanner's console.

    The gain of a row is the sum of an overall gain and of what sliders at equal distances of depth add, linearly
    interpolated between them, as on the console. Depth is the row of the frame.

    Args:
        keys: keys of the frames, (1, H, W).
        prob: probability that an item is transformed.
        gain_db: largest overall gain in dB, up or down.
        slider_db: largest gain of a slider in dB, up or down.
        sliders: number of sliders, the first on the first row and the last on the last.
        allow_missing_keys: whether an item may lack a key.

    Example:
        >>> transform = RandTimeGaind("image", prob=1.0, gain_db=6.0, slider_db=0.0).set_random_state(0)
        >>> frame = torch.tensor([[[0.0, 0.5], [0.5, 0.5]]])
        >>> transform({"image": frame})["image"]
        tensor([[[0.0000, 0.5430],
                 [0.5430, 0.5430]]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        gain_db: float = 6.0,
        slider_db: float = 4.0,
        sliders: int = 6,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys)
        self.gain_db = gain_db
        self.slider_db = slider_db
        self.sliders = sliders

    def draw(self, height: int, width: int) -> None:
        """Draw the gain of each row."""
        gains = self.R.uniform(-self.gain_db, self.gain_db) + self.R.uniform(
            -self.slider_db, self.slider_db, self.sliders
        )
        rows = np.interp(np.linspace(0, self.sliders - 1, height), np.arange(self.sliders), gains)
        self._gain = torch.from_numpy(rows.astype(np.float32))[:, None]

    def apply(self, frame: Tensor, item: Mapping[Hashable, Any]) -> Tensor:
        """Amplify each row."""
        return _amplified(frame, self._gain)


class RandSpeckled(RandFrameTransformd):
    r"""Random speckle of the envelope, of limited strength.

    Echoes of many small scatterers add up to a circular complex Gaussian field :math:`z`. Its amplitude is Rayleigh
    distributed, and :math:`10 \log_{10} |z|^2` of unit power has a mean of -2.5 dB and a standard deviation of 5.6 dB
    whatever the tissue. The offset is this log-compressed speckle, centred so that tissue keeps its mean level, and
    scaled down, for the frame has speckle of its own. The field is drawn at half the frame's size and interpolated
    linearly, which leaves it Gaussian and correlates neighbouring pixels, as a point-spread function does.

    Args:
        keys: keys of the frames, (1, H, W).
        prob: probability that an item is transformed.
        std_db: largest standard deviation of the added speckle in dB; that of an item is uniform from 0 to this.
        allow_missing_keys: whether an item may lack a key.

    Example:
        >>> transform = RandSpeckled("image", prob=1.0).set_random_state(0)
        >>> frame = transform({"image": torch.full((1, 64, 64), 0.5)})["image"]
        >>> round(frame.mean().item(), 2), frame.std() > 0
        (0.5, tensor(True))

    References:
        Wagner, R. F., Smith, S. W., Sandrik, J. M., Lopez, H. Statistics of speckle in ultrasound B-scans.
        IEEE Transactions on Sonics and Ultrasonics 30(3), 156-163, 1983.

        Dutt, V., Greenleaf, J. F. Adaptive speckle reduction filter for log-compressed B-scan images.
        IEEE Transactions on Medical Imaging 15(6), 802-813, 1996 (statistics after log compression).
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, std_db: float = 3.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys)
        self.std_db = std_db

    def draw(self, height: int, width: int) -> None:
        """Draw the strength and the field of speckle."""
        self._strength = self.R.uniform(0.0, self.std_db) / _SPECKLE_STD
        # torch draws normal numbers five times faster than self.R
        generator = torch.Generator().manual_seed(self.R.randint(MAX_SEED, dtype=np.uint32).item())
        # a cell more on each side than the frame needs: every pixel then lies between cells, and has the same power
        cells = torch.randn((1, 2, height // 2 + 2, width // 2 + 2), generator=generator)
        field = functional.interpolate(cells, scale_factor=2.0, mode="bilinear")
        self._field = field[0, :, 1 : 1 + height, 1 : 1 + width]

    def apply(self, frame: Tensor, item: Mapping[Hashable, Any]) -> Tensor:
        """Add the log-compressed speckle."""
        # weights of 3/4 and 1/4 along each axis leave 5/8 of the variance along each, in both parts
        power = self._field.square().sum(0, keepdim=True).div_(2 * (5 / 8) ** 2)
        level = power.log10_().mul_(10).sub_(_SPECKLE_MEAN)
        return _amplified(frame, level.mul_(self._strength))


class RandShadowd(RandFrameTransformd):
    r"""A random acoustic shadow: a wedge between two beam lines, dark from some depth downwards.

    Bone, gas or poor contact take a part of the beam away. Beam lines are found from the outline of the sector: two
    straight lines follow its sides from near its top to its widest row, and the lines that divide the width between
    them in a fixed ratio are the beams. They meet in the apex of a fan, and are parallel in the rectangle of a linear
    probe (or of a close crop, where the sides of the fan are cut off). The attenuation sets in over a tenth of the
    depth and falls off linearly over the outer half of the wedge: the beam has a width, so a shadow has no sharp edge.

    Args:
        keys: keys of the frames, (1, H, W).
        mask_key: key of the sector's mask, (1, H, W); an item without it is all sector.
        prob: probability that an item is transformed.
        loss_db: least and largest attenuation in dB.
        width: least and largest width of the wedge, as a share of the opening of the sector.
        depth: least and largest depth at which it starts, as a share of the depth of the sector.
        allow_missing_keys: whether an item may lack a key.

    Example:
        >>> transform = RandShadowd("image", prob=1.0, depth=(0.5, 0.5)).set_random_state(0)
        >>> frame = transform({"image": torch.full((1, 64, 64), 0.5)})["image"]
        >>> [frame[:, rows].amin() < 0.5 for rows in (slice(0, 32), slice(32, 64))]
        [tensor(False), tensor(True)]
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str = "sector",
        prob: float = 0.2,
        loss_db: tuple[float, float] = (6.0, 24.0),
        width: tuple[float, float] = (0.08, 0.3),
        depth: tuple[float, float] = (0.1, 0.7),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys)
        self.mask_key = mask_key
        self.loss_db = loss_db
        self.width = width
        self.depth = depth

    def draw(self, height: int, width: int) -> None:
        """Draw position, width, start and attenuation."""
        self._centre = self.R.uniform(0.0, 1.0)
        self._half_width = self.R.uniform(*self.width) / 2
        self._start = self.R.uniform(*self.depth)
        self._loss = self.R.uniform(*self.loss_db)

    def apply(self, frame: Tensor, item: Mapping[Hashable, Any]) -> Tensor:
        """Darken the wedge."""
        beam, depth = _beam_coordinates(sector_mask(item, self.mask_key, frame)[0])
        across = ((self._half_width - (beam - self._centre).abs()) * (2 / self._half_width)).clamp_(0, 1)
        along = ((depth - self._start) * 10).clamp_(0, 1)
        return _amplified(frame, across * along * -self._loss)


def _amplified(frame: Tensor, gain: Tensor) -> Tensor:
    """The frame after a gain in dB of each pixel; see the head of the module."""
    offset = torch.minimum(gain / DYNAMIC_RANGE, frame)
    return (torch.maximum(offset, -frame) + frame).clamp_(max=1)


def _beam_coordinates(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel lies in the sector: share of its opening from the left (H, W), share of its depth (H, 1)."""
    height, width = mask.shape
    top, bottom = span(mask.amax(1))
    # the sides start a little below the first row, which may hold one tip of the near-field arc alone
    upper = top + (bottom - top) // 8
    widest = max(int(mask.sum(1).argmax()), upper)
    rows = torch.arange(height, dtype=mask.dtype)[:, None]
    run = (rows - upper) / max(widest - upper, 1)
    left, right = (
        above + (below - above) * run for above, below in zip(span(mask[upper]), span(mask[widest]), strict=True)
    )
    columns = torch.arange(width, dtype=mask.dtype) + 0.5
    return (columns - left) / (right - left).clamp_(min=1), (rows + 0.5 - top) / (bottom - top)
