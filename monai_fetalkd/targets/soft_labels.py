"""Soft labels of whole volumes on the side of the data: read for each item, and moved with image and label."""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    LazyTrait,
    MapTransform,
    Rand2DElasticd,
    Rand3DElasticd,
    RandGridDistortiond,
    RandomizableTrait,
    Transform,
)
from monai.utils import ImageMetaKey

from monai_fetalkd.utils.hashing import hash_of_data

__all__ = ["SoftLabelVolumes", "SoftLabeld", "name_of_volume", "with_soft_labels"]

_DIGITS = 32  # of the name of a volume's file

# those of MONAI that move voxels and cannot be lazy
_SPATIAL = (LazyTrait, Rand2DElasticd, Rand3DElasticd, RandGridDistortiond)


class SoftLabeld(MapTransform, RandomizableTrait):
    """Read what the teacher has said of each voxel of a volume, from the folder of a :class:`SoftLabelTeacher`.

    It stands behind the deterministic transforms and before the random ones; the random spatial transforms get
    ``"soft_label"`` as one more of their keys. It reads a memory map, so a crop costs the bytes of the crop. It draws
    nothing, yet counts as random, so that MONAI's caches run it anew each time: when they are filled, the teacher may
    not be trained yet.

    The file is found by the content of the volume (shape, type and values). Transforms before it whose results may
    differ in the last digit between processes, such as a mean over several threads, belong in a cache.

    Args:
        keys: key of the volume, one alone.
        folder: folder of the soft labels, that of the :class:`SoftLabelTeacher`.
        soft_label_key: key of the soft label, uint8 ``[classes, *spatial]``, with the affine of the volume.

    Raises:
        ValueError: when there are several keys; by the call, when the folder has no soft label of the volume, or one
            that is damaged or of another volume.

    Example:
        >>> from monai.transforms import RandSpatialCropd, ScaleIntensityd
        >>> transforms = Compose(
        ...     [
        ...         ScaleIntensityd("image"),
        ...         SoftLabeld("image", "soft_labels"),
        ...         RandSpatialCropd(["image", "label", "soft_label"], (32, 32, 32), random_size=False),
        ...     ]
        ... )
    """

    def __init__(
        self, keys: KeysCollection, folder: str | os.PathLike[str], soft_label_key: Hashable = "soft_label"
    ) -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"soft labels are those of one volume: give one key, not {list(self.keys)}")
        self.folder = Path(folder)
        self.soft_label_key = soft_label_key

    def path(self, volume: Any) -> Path:
        """The file of a volume's soft label."""
        return self.folder / f"{hash_of_data(torch.as_tensor(volume))[:_DIGITS]}.npy"

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the soft label of one item."""
        volume = data[self.keys[0]]
        path = self.path(volume)
        try:
            codes = np.load(path, mmap_mode="c")
        except FileNotFoundError:
            raise ValueError(
                f"'{self.folder}' has no soft label of the volume {name_of_volume(volume)}: the run of a trainer whose "
                "teacher is a SoftLabelTeacher of this folder writes them at its start. The transforms before "
                "SoftLabeld must be those of that run."
            ) from None
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"The soft label '{path}' is damaged: delete it and start the run again.") from error
        if codes.dtype != np.uint8 or codes.shape[1:] != tuple(volume.shape[1:]):
            raise ValueError(
                f"The soft label '{path}' of shape {codes.shape} is not that of the volume {name_of_volume(volume)} of "
                f"shape {tuple(volume.shape)}: delete it and start the run again."
            )
        label = torch.from_numpy(codes)
        if isinstance(volume, MetaTensor):
            label = MetaTensor(label, affine=volume.affine)
        return {**data, self.soft_label_key: label}


def with_soft_labels(
    dataset: Any, folder: str | os.PathLike[str], keys: KeysCollection = "image", soft_label_key: str = "soft_label"
) -> Any:
    """The same dataset with a :class:`SoftLabeld` before its first random transform, for the stage that needs it.

    Both share one cache. So the stages that train the teacher use the given dataset, and stage 2 this one. The random
    spatial transforms name the soft label among their keys, with ``allow_missing_keys``.

    Args:
        dataset: a MONAI dataset whose ``transform`` is a ``Compose``, such as a ``CacheDataset``.
        folder: folder of the soft labels.
        keys: key of the volume, one alone.
        soft_label_key: key of the soft label.

    Returns:
        A shallow copy of the dataset.

    Raises:
        TypeError: when the dataset has no ``Compose``.
    """
    transform = getattr(dataset, "transform", None)
    if not isinstance(transform, Compose):
        raise TypeError(f"soft labels need a MONAI dataset with a Compose, but got a {type(dataset).__name__}")
    first = transform.get_index_of_first(lambda each: isinstance(each, RandomizableTrait))
    first = len(transform.transforms) if first is None else first
    soft_label = SoftLabeld(keys, folder, soft_label_key)
    shared = copy.copy(dataset)
    shared.transform = Compose([*transform.transforms[:first], soft_label, *transform.transforms[first:]])
    return shared


class SoftLabelVolumes:
    """The volumes of a loader's dataset as :class:`SoftLabeld` meets them, through the caches of the dataset."""

    def __init__(self, loader: Iterable, folder: Path, soft_label_key: str) -> None:
        dataset: Any = getattr(loader, "dataset", None)
        while isinstance(inner := getattr(dataset, "dataset", None), torch.utils.data.Dataset):
            dataset = inner  # of fixed views, or of a part
        transforms = list(getattr(getattr(dataset, "transform", None), "transforms", ()))
        found = [index for index, transform in enumerate(transforms) if isinstance(transform, SoftLabeld)]
        folders = [str(transforms[index].folder) for index in found]
        if [Path(each).resolve() for each in folders] != [folder.resolve()]:
            raise ValueError(
                f"soft labels need a loader whose dataset has one SoftLabeld of the folder '{folder}' in its Compose, "
                f"but its folders of soft labels are {folders}"
            )
        before, self._transform = transforms[: found[0]], transforms[found[0]]
        if random := [type(each).__name__ for each in before if isinstance(each, RandomizableTrait)]:
            raise ValueError(f"SoftLabeld must stand before the random transforms, but {random[0]} is before it")
        self.key = self._transform.keys[0]
        _check_moved_together(transforms[found[0] + 1 :], self.key, soft_label_key)
        self._dataset = copy.copy(dataset)
        self._dataset.transform = Compose([*before, _CacheEnd()])

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: int) -> Mapping[Hashable, Any]:
        """A volume with what comes with it."""
        item = self._dataset[index]
        if not isinstance(item, Mapping):
            raise ValueError(
                f"SoftLabeld takes items that are dictionaries, but item {index} is a {type(item).__name__}"
            )
        return {**item, self.key: torch.as_tensor(item[self.key])}

    def path(self, volume: Any) -> Path:
        """The file of its soft label."""
        return self._transform.path(volume)


class _CacheEnd(Transform, RandomizableTrait):
    """Stands where :class:`SoftLabeld` stands, so that MONAI's caches end there."""

    def __call__(self, data: Any) -> Any:
        return data


def _check_moved_together(transforms: Iterable[Any], image_key: Hashable, key: Hashable) -> None:
    """Check that every spatial transform of an image is one of its soft label too.

    Args:
        transforms: transforms, or a ``Compose`` among them.
        image_key: key of the image.
        key: key of what must be moved with it.

    Raises:
        ValueError: naming the first transform that leaves it behind.
    """
    for transform in transforms:
        if isinstance(transform, Compose):
            _check_moved_together(transform.transforms, image_key, key)
        elif isinstance(transform, _SPATIAL):
            keys = getattr(transform, "keys", ())
            if image_key in keys and key not in keys:
                raise ValueError(f"{type(transform).__name__} moves '{image_key}' but not '{key}': add it to its keys")


def name_of_volume(volume: Any) -> str:
    """What a message calls a volume: its file, where it knows it."""
    return repr(str(getattr(volume, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "without a name")))
