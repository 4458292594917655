"""Pictures as data URIs, which a page holds within itself."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from monai_fetalkd.ultrasound.frames import find_sector

__all__ = ["frame_picture", "heat_picture"]

_LONG_SIDE = 200  # pixels: twice what a column of the page shows, for sharp screens


def frame_picture(image: Tensor) -> str:
    """A frame as PNG.

    Args:
        image: frame ``[1, H, W]``, 0 to 1.

    Returns:
        A data URI.
    """
    return _data_uri(Image.fromarray(_gray(image)), "png")


def heat_picture(image: Tensor, heat: Tensor) -> str:
    """A map of non-negative values over its frame, in viridis, inside the scan sector and nowhere else.

    The colours are stretched from the least to the greatest value inside the sector.

    Args:
        image: frame ``[1, H, W]``, 0 to 1.
        heat: map ``[h, w]``, enlarged to the frame.

    Returns:
        A data URI. It is a JPEG: speckle under colour makes PNG files ten times as large.
    """
    gray = _gray(image)
    sector = _inside_sector(gray)
    large = functional.interpolate(heat[None, None], gray.shape, mode="bicubic", align_corners=False)[0, 0].numpy()
    low, high = large[sector].min(), large[sector].max()
    colors = mpl.colormaps["viridis"](np.clip((large - low) / max(high - low, np.finfo(large.dtype).tiny), 0, 1))
    mixed = np.where(sector[..., None], 0.45 * gray[..., None] + 0.55 * 255 * colors[..., :3], gray[..., None])
    return _data_uri(Image.fromarray(mixed.round().astype(np.uint8)), "jpeg")


def _inside_sector(gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
    sector = find_sector(gray)
    top, left, bottom, right = sector.box
    inside = np.zeros(gray.shape, dtype=bool)
    inside[top:bottom, left:right] = sector.mask
    return inside


def _gray(image: Tensor) -> NDArray[np.uint8]:
    """The frame in eight bits, enlarged or reduced to the size at which it is shown."""
    picture = Image.fromarray((torch.as_tensor(image)[0].clamp(0, 1) * 255).round().byte().numpy())
    scale = _LONG_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX))


def _data_uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=85, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
