"""A dataset whose random transforms draw a fixed number of views of each frame."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import SmartCacheDataset
from monai.transforms import Compose, Randomizable
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from monai_fetalkd.utils.hashing import hash_of_data, hash_of_transforms
from monai_fetalkd.utils.traits import path_keys

__all__ = ["FixedViews"]

# a datalist holds hashes of these, under a salt that may be new in every run
_PSEUDONYMS = ("group", "operator")


class FixedViews(Dataset):
    """A MONAI dataset whose random transforms draw the same ``views`` views of each frame, over and over.

    All random transforms draw from one generator in turn, which is seeded for each item with the run's seed, the item's
    index and the view. So a view has the same pixels whenever, and in whichever worker, process or thread, it is drawn:
    each thread has transforms of its own, and all share the dataset's cache. In epoch ``e`` every frame shows view
    ``e`` modulo ``views``; with as many views as epochs, no view is shown twice.

    Each item gets the number of its view, ``index * views + view``, under ``"view"``, by which :class:`TeacherTargets`
    finds what the teacher said of it. Where a transform such as ``RandCropByPosNegLabeld`` makes an item a list of
    ``samples`` dictionaries, each of them gets a number of its own, ``(index * samples + sample) * views + view``.

    The transforms must draw from the random state that MONAI's ``set_random_state`` gives them, as MONAI's own do, not
    from a global generator. Make this dataset before its transforms have run: what they drew last is part of their
    state, and would make the targets look like those of other transforms, to be computed again.

    Args:
        dataset: a MONAI dataset whose ``transform`` is a ``Compose``, such as ``CacheDataset`` or
            :func:`monai_fetalkd.ultrasound.data.frame_dataset`. Its items are dictionaries, or lists of as many
            dictionaries each, and stay the same: no ``SmartCacheDataset`` or iterable dataset, and no ``set_data`` from
            now on.
        views: number of views of each frame.
        seed: seed of the views, from 0 to 2^32 - 1.
        keep: keep each view in memory once it has been drawn. With a slim student and stored targets, drawing the views
            takes more time than learning from them. It pays without workers, or with persistent ones, each of which
            keeps its own.

    Raises:
        ValueError: when ``views`` is below 1 or a transform cannot be pickled; later, by an item that is no dictionary
            or list of as many dictionaries as the first item, and once the data of the dataset have been replaced.
        TypeError: when the dataset has no ``Compose``, or its items change.

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

    def __init__(self, dataset: Any, views: int, seed: int = 0, keep: bool = False) -> None:
        if views < 1:
            raise ValueError(f"views must be 1 or more, got {views}: for a live teacher, use the dataset as it is")
        if isinstance(dataset, (SmartCacheDataset, IterableDataset)):
            raise TypeError(
                f"FixedViews numbers items by their index, but an index of {type(dataset).__name__} is another item "
                "in each epoch: use a CacheDataset or a PersistentDataset."
            )
        if not isinstance(getattr(dataset, "transform", None), Compose) or not hasattr(dataset, "data"):
            raise TypeError(f"FixedViews needs a MONAI dataset with a Compose, but got a {type(dataset).__name__}.")
        self.dataset = dataset
        self.views = views
        self.seed = seed
        self.keep = keep
        self._kept: dict[tuple[int, int], Any] = {}
        self._data, self._length = dataset.data, len(dataset)
        # in shared memory, where the workers of a loader see them change
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._samples = torch.zeros((), dtype=torch.int64).share_memory_()  # 0 until an item has been drawn
        # of a seeded copy: where the random states stand makes no difference to the views
        self._transforms = hash_of_transforms([copy.deepcopy(dataset.transform).set_random_state(seed=0)])
        self._own = threading.local()

    @property
    def samples(self) -> int:
        """Number of dictionaries that the transforms make of an item; the first item is drawn to find it."""
        if not self._samples:
            self._samples.fill_(len(_dictionaries(self._draw(0, view=0), 0)))
        return int(self._samples)

    @property
    def rows(self) -> int:
        """Number of all views of all samples: their numbers are 0 to ``rows - 1``."""
        return len(self) * self.samples * self.views if len(self) else 0

    @property
    def epoch(self) -> int:
        """The epoch whose views are shown."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Show the view of this epoch from now on; epochs count from 0."""
        self._epoch.fill_(epoch)

    def check_epoch(self, numbers: Tensor) -> None:
        """Check that a batch shows the views of this epoch.

        Workers draw ahead. Where an epoch ends in the middle of a pass through the loader, they have drawn batches of
        the next epoch before :meth:`set_epoch` told them so.

        Args:
            numbers: the ``"view"`` of a batch.

        Raises:
            ValueError: when it shows a view of another epoch.
        """
        shown = set((numbers % self.views).tolist())
        if shown - {self.epoch % self.views}:
            raise ValueError(
                f"Epoch {self.epoch} shows view {self.epoch % self.views} of each frame, but this batch shows "
                f"{', '.join(map(str, sorted(shown)))}: workers had drawn it before the epoch began. Let an epoch be "
                "one pass through the loader (leave epoch_length out), or give the loader no workers."
            )

    def description(self) -> dict[str, str | int]:
        """Tell all that the pixels of the views depend on, to be read and to be hashed."""
        paths = {"image", *path_keys(self.dataset.transform)}
        return {
            "frames": len(self),
            "hash_of_frames": hash_of_data([_pictured(row) for row in self.dataset.data], path_keys=paths),
            "hash_of_transforms": self._transforms,
            "views": self.views,
            "seed": self.seed,
        }

    def __len__(self) -> int:
        if self.dataset.data is not self._data or len(self.dataset) != self._length:
            raise ValueError("The data of the dataset were replaced after FixedViews had numbered them: wrap it anew.")
        return self._length

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no item {index} among {len(self)}")
        view = self.epoch % self.views
        item = self._kept.get((index, view)) if self.keep else None
        if item is None:
            item = self._draw(index, view)
            if self.keep:
                self._kept[index, view] = item
        samples = _dictionaries(item, index)
        if len(samples) != self.samples:
            raise ValueError(
                f"FixedViews needs as many samples of each item, but the transforms made {len(samples)} of item "
                f"{index} and {self.samples} of item 0: use transforms with a fixed num_samples."
            )
        first = index * self.samples
        numbered = [{**sample, "view": (first + i) * self.views + view} for i, sample in enumerate(samples)]
        return numbered if isinstance(item, list) else numbered[0]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_own", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for shared in (self._epoch, self._samples):
            shared.share_memory_()  # what a spawned worker gets is shared already, a deep copy is not
        self._own = threading.local()
        self._kept = {}

    def _draw(self, index: int, view: int) -> Any:
        own = self._own
        if not hasattr(own, "dataset"):
            # transforms keep what they draw in themselves, so threads must not share them
            own.random = np.random.RandomState()
            own.dataset = copy.copy(self.dataset)
            own.dataset.transform = copy.deepcopy(self.dataset.transform)
        # mixed by the generator, not added up: neighbours in one of the three have no stream in common
        own.random.seed((self.seed, index, view))
        _draw_from(own.random, own.dataset.transform)  # every time: MONAI's loaders set random states of their own
        return own.dataset[index]


def _dictionaries(item: Any, index: int) -> list[dict[Any, Any]]:
    samples = item if isinstance(item, list) else [item]
    for sample in samples or [item]:
        if not isinstance(sample, dict):
            what = f"a list of {type(sample).__name__}" if sample is not item else f"a {type(item).__name__}"
            raise ValueError(f"FixedViews needs items that are dictionaries, but item {index} is {what}.")
        if "view" in sample:
            raise ValueError(f"FixedViews gives each item a 'view', but item {index} has one already: rename it.")
    return samples


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
