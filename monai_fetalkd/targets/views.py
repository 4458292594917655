"""A dataset whose random transforms draw a fixed number of views of each frame."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, Randomizable
from torch.utils.data import Dataset

from monai_fetalkd.keys import hash_of_data, hash_of_transforms

__all__ = ["FixedViews"]

# hashed under a salt that may be new in every run, see monai_fetalkd.data.datalist
_PSEUDONYMS = ("group", "operator")


class FixedViews(Dataset):
    """A MONAI dataset whose random transforms draw the same ``views`` views of each frame, over and over.

    All random transforms draw from one generator in turn, which is seeded for each item with the run's seed, the item's
    index and the view. So a view has the same pixels whenever, and in whichever worker or process, it is drawn. In
    epoch ``e`` every frame shows view ``e`` modulo ``views``; with as many views as epochs, no view is shown twice.
    Each item gets its number, ``index * views + view``, under ``"view"``, by which :class:`TeacherTargets` finds what
    the teacher said of it.

    The transforms must draw from the random state that MONAI's ``set_random_state`` gives them, as MONAI's own do, not
    from a global generator. Make this dataset before its transforms have run: what they drew last is part of their
    state, and would make the targets look like those of other transforms, to be computed again.

    Args:
        dataset: a MONAI dataset whose ``transform`` is a ``Compose``, such as ``CacheDataset`` or
            :func:`monai_fetalkd.data.frame_dataset`. Its items are dictionaries.
        views: number of views of each frame.
        seed: seed of the views, from 0 to 2^32 - 1.

    Raises:
        ValueError: when ``views`` is below 1 or a transform cannot be pickled, and by an item that is not a dictionary.
        TypeError: when the dataset has no ``Compose``.

    Example:
        >>> from monai.data import Dataset
        >>> from monai.transforms import RandGaussianNoised
        >>> frames = [{"image": torch.zeros(1, 2)}, {"image": torch.zeros(1, 2)}]
        >>> noisy = FixedViews(Dataset(frames, Compose([RandGaussianNoised("image", prob=1.0)])), views=2)
        >>> for epoch in range(3):
        ...     noisy.set_epoch(epoch)
        ...     print([item["view"] for item in noisy], noisy[1]["image"].numpy().round(3))
        [0, 2] [[-0.025 -0.032]]
        [1, 3] [[ 0.012 -0.004]]
        [0, 2] [[-0.025 -0.032]]
    """

    def __init__(self, dataset: Any, views: int, seed: int = 0) -> None:
        if views < 1:
            raise ValueError(f"views must be 1 or more, got {views}: for a live teacher, use the dataset as it is")
        if not isinstance(getattr(dataset, "transform", None), Compose):
            raise TypeError(f"FixedViews needs a MONAI dataset with a Compose, but got a {type(dataset).__name__}.")
        self.dataset = dataset
        self.views = views
        self.seed = seed
        self._random = np.random.RandomState()
        # in shared memory, where the persistent workers of a loader see it change
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        # of a seeded copy: where the random states stand makes no difference to the views
        self._transforms = hash_of_transforms([copy.deepcopy(dataset.transform).set_random_state(seed=0)])

    def set_epoch(self, epoch: int) -> None:
        """Show the view of this epoch from now on; epochs count from 0."""
        self._epoch.fill_(epoch)

    def description(self) -> dict[str, str | int]:
        """Tell all that the pixels of the views depend on, to be read and to be hashed."""
        return {
            "frames": len(self),
            "hash_of_frames": hash_of_data([_pictured(row) for row in self.dataset.data]),
            "hash_of_transforms": self._transforms,
            "views": self.views,
            "seed": self.seed,
        }

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[Any, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no item {index} among {len(self)}")
        view = int(self._epoch) % self.views
        # mixed by the generator, not added up: neighbours in one of the three have no stream in common
        self._random.seed((self.seed, index, view))
        _draw_from(self._random, self.dataset.transform)  # every time: MONAI's loaders set random states of their own
        item = self.dataset[index]
        if not isinstance(item, dict):
            raise ValueError(
                f"FixedViews needs items that are dictionaries, but item {index} is a {type(item).__name__}."
            )
        return {**item, "view": index * self.views + view}


def _pictured(row: Any) -> Any:
    """What the pixels of a frame may depend on."""
    if not isinstance(row, Mapping):
        return row
    return {key: value for key, value in row.items() if key not in _PSEUDONYMS}


def _draw_from(generator: np.random.RandomState, transform: Any) -> None:
    # set_random_state of a Compose would make a generator for each transform, which takes longer than many transforms
    if isinstance(transform, Compose):
        transform.R = generator
        for part in transform.transforms:
            _draw_from(generator, part)
    elif isinstance(transform, Randomizable):
        transform.set_random_state(state=generator)
