"""What a frame goes through before the network, as plain data that travels with an exported network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monai_fetalkd.ultrasound.frames import crop_to_sector

from .letterbox import letterbox

__all__ = ["Preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """From the grey levels of a frame to the input of a network, as the bundle's configs do it with MONAI and torch.

    ======== ======================= ============================================== =====================
    ``crop`` the configs             cut to the scan sector, black around it        a smaller frame
    ======== ======================= ============================================== =====================
    False    ``inference.json``      no                                             its pixels repeated
    True     and ``ultrasound.json`` first to the region of the file, if it has one enlarged linearly
    ======== ======================= ============================================== =====================

    A larger frame is shrunk by averaging, black is added for the proportions to stay, and levels 0 to 255 become 0 to
    1. The input is that of the configs to 1e-5.

    Args:
        size: height and width of the input.
        crop: whether the frame is cut to its scan sector, see :func:`monai_fetalkd.ultrasound.frames.crop_to_sector`.

    Raises:
        ValueError: when the size is not a height and a width of at least one pixel.

    Example:
        >>> frame = np.full((120, 160), 51, np.uint8)
        >>> Preprocessing(size=(8, 4), crop=False)(frame).round(3)[0, :, 0]
        array([0. , 0. , 0.2, 0.2, 0.2, 0. , 0. , 0. ], dtype=float32)
    """

    size: tuple[int, int]
    crop: bool

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(isinstance(side, int) and side > 0 for side in self.size):
            raise ValueError(f"The size of an input is its height and width in pixels, not {self.size}.")

    def __call__(self, pixels: np.ndarray, region: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Prepare one frame.

        Args:
            pixels: grey levels 0 to 255 of shape ``(H, W)``, of any type.
            region: ``(top, left, bottom, right)`` of the B-mode picture, where the file has told it
                (:attr:`monai_fetalkd.ultrasound.frames.Frame.region`); used where the frame is cropped.

        Returns:
            The input of the network, float32 from 0 to 1 of shape ``(1, *size)``.

        Raises:
            ValueError: when the pixels are not ``(H, W)``, less than two on a side, or not finite.
        """
        if pixels.ndim != 2 or min(pixels.shape) < 2:
            raise ValueError(f"A frame is grey levels of shape (H, W), not {pixels.shape}: pass one channel of it.")
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ValueError("The grey levels of a frame are finite numbers, and some of these are not.")
        if self.crop:
            pixels = crop_to_sector(pixels, region)
        levels = letterbox(pixels, self.size, smooth=self.crop)
        levels /= 255
        return levels[None]

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return {**asdict(self), "size": list(self.size)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: when a field is missing, unknown or no value of its kind.

        Example:
            >>> Preprocessing.from_dict({"size": [224, 224], "crop": True})
            Preprocessing(size=(224, 224), crop=True)
        """
        if fields.keys() != {"size", "crop"} or not isinstance(fields["size"], list | tuple):
            raise ValueError(f"Preprocessing is a 'size' and a 'crop', not {dict(fields)}.")
        if not isinstance(fields["crop"], bool):
            raise ValueError(f"The 'crop' of preprocessing is true or false, not {fields['crop']!r}.")
        return cls(tuple(fields["size"]), fields["crop"])
