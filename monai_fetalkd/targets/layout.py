"""How the teacher's logits and reduced features of a view lie in one row of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from monai_fetalkd.utils.tensor import plain

__all__ = ["FeatureType", "TargetLayout"]

FeatureType = Literal["uint8", "float32"]


class TargetLayout:
    r"""Packs logits and reduced features of views into rows of bytes, and unpacks them.

    Logits are kept as float32. A reduced feature :math:`r`, which is not negative, is kept as float32 too, or as one
    byte a value: :math:`255 (r / \max r)^2`, rounded, beside the float32 maximum of the view. Squared, because that is
    the attention map of power 2 itself, which errs less in the loss than its root would: by a few parts in 10,000.

    Args:
        logits: shape of the logits of a view, ``(classes, *spatial)``.
        features: shape of the reduced feature of each layer, without the batch.
        dtype: how features are kept, ``"uint8"`` or ``"float32"``.

    Attributes:
        row: the row as a numpy dtype: ``crc32`` of the rest of the row, ``logits``, and for each layer
            ``feature.<layer>`` and, for uint8, ``maximum.<layer>``.

    Raises:
        ValueError: when ``dtype`` is none of the two.

    Example:
        >>> layout = TargetLayout((3,), {"layer4": (1, 2, 2)})
        >>> layout.row.itemsize
        24
        >>> rows = layout.pack(torch.tensor([[1.0, 2.0, 3.0]]), {"layer4": torch.tensor([[[[0.0, 0.5], [1.0, 2.0]]]])})
        >>> layout.unpack(rows, logits=True, layers=["layer4"])
        (tensor([[1., 2., 3.]]), {'layer4': tensor([[[[0.0000, 0.5010],
                  [1.0020, 2.0000]]]])})
    """

    def __init__(
        self, logits: Sequence[int], features: Mapping[str, Sequence[int]], dtype: FeatureType = "uint8"
    ) -> None:
        if dtype not in get_args(FeatureType):
            raise ValueError(f"dtype of the targets must be one of {get_args(FeatureType)}, got {dtype!r}")
        self.shapes = {"logits": tuple(logits)} | {
            f"feature.{layer}": tuple(shape) for layer, shape in features.items()
        }
        self.layers = list(features)
        self.dtype = dtype
        fields: list[tuple] = [("crc32", "<u4"), ("logits", "<f4", tuple(logits))]
        for layer, shape in features.items():
            if dtype == "uint8":
                fields.append((f"maximum.{layer}", "<f4"))
            fields.append((f"feature.{layer}", "u1" if dtype == "uint8" else "<f4", tuple(shape)))
        self.row = np.dtype(fields)

    def pack(self, logits: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Pack a batch.

        Args:
            logits: ``[N, classes, *spatial]``.
            features: by layer, ``[N, ...]``, not negative.

        Returns:
            uint8 ``[N, bytes of a row without its CRC-32]``, on the device of the logits.

        Raises:
            ValueError: when a shape is not that of the layout.
        """
        parts = []
        for (name, shape), values in zip(
            self.shapes.items(), (logits, *(features[layer] for layer in self.layers)), strict=True
        ):
            if values.shape[1:] != shape:
                raise ValueError(
                    f"all views need targets of one shape, but '{name}' of this batch is {tuple(values.shape[1:])} and "
                    f"was {shape} before: give frames of one size"
                )
            values = plain(values).float().reshape(len(values), -1)
            if name != "logits" and self.dtype == "uint8":
                maximum = values.amax(1, keepdim=True)
                parts.append(maximum)
                # a map of zeros has no maximum to divide by
                ratio = values / maximum.clamp_min(torch.finfo(torch.float32).tiny)
                values = (255 * ratio.square()).round().to(torch.uint8)
            parts.append(values)
        return torch.cat([part.contiguous().view(torch.uint8) for part in parts], 1)

    def unpack(self, rows: Tensor, logits: bool, layers: Sequence[str]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Unpack a batch.

        Args:
            rows: as :meth:`pack` returns them, on any device.
            logits: whether the logits are wanted.
            layers: the layers that are wanted.

        Returns:
            Float32 logits or None, and float32 features by layer.
        """
        names = list(self.row.names or ())[1:]
        fields = dict(zip(names, rows.split([self.row[name].itemsize for name in names], 1), strict=True))
        features = {}
        for layer in layers:
            if self.dtype == "float32":
                values = _floats(fields[f"feature.{layer}"])
            else:
                values = (fields[f"feature.{layer}"] / 255).sqrt() * _floats(fields[f"maximum.{layer}"])
            features[layer] = values.reshape(len(rows), *self.shapes[f"feature.{layer}"])
        shape = (len(rows), *self.shapes["logits"])
        return _floats(fields["logits"]).reshape(shape) if logits else None, features


def _floats(data: Tensor) -> Tensor:
    # a copy of its own is aligned as numbers must be, which a slice of a row is not
    return data.clone(memory_format=torch.contiguous_format).view(torch.float32)
