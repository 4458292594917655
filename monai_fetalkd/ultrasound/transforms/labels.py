"""What a label may hold."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

__all__ = ["CheckLabelsd"]


class CheckLabelsd(MapTransform):
    """Check that a segmentation, or the label of a whole image, holds numbers of the class table alone.

    It is passed on as it is.

    A number outside the table fails deep inside a loss, far from the file that it is in.

    Args:
        keys: keys of the labels.
        class_names: the class table; the numbers go from 0 to the last class.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: by the call, when there is another number.

    Example:
        >>> item = CheckLabelsd("label", ["background", "organ"])({"label": torch.tensor([[0, 1, 1]])})
        >>> CheckLabelsd("label", ["background", "organ"])({"label": torch.tensor([[0, 2]])})
        Traceback (most recent call last):
        ...
        ValueError: The label '' holds 2, but the class table has the numbers 0 to 1: background, organ.
    """

    def __init__(self, keys: KeysCollection, class_names: Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.class_names = tuple(class_names)

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Check one item."""
        for key in self.key_iterator(data):
            label = torch.as_tensor(data[key])
            for value in torch.unique(label).tolist():
                if value != int(value) or not 0 <= value < len(self.class_names):
                    file = getattr(data[key], "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "")
                    raise ValueError(
                        f"The label '{file}' holds {value:g}, but the class table has the numbers 0 to "
                        f"{len(self.class_names) - 1}: {', '.join(self.class_names)}."
                    )
        return data
