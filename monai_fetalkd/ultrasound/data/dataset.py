"""Datasets of ultrasound frames, on MONAI's caches in memory and on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import CacheDataset, IterableDataset, PersistentDataset
from torch.utils.data import get_worker_info
from tqdm import tqdm

from monai_fetalkd.ultrasound.frames import FrameError
from monai_fetalkd.utils.hashing import hash_of_data, hash_of_transforms
from monai_fetalkd.utils.machine import machine_error, writing

from .annotations import annotated_rows
from .bad_frames import BadFrames

__all__ = ["FrameDataset", "FrameStream", "PersistentFrameDataset", "frame_dataset"]

# what a frame is read from; labels and groups of the datalist never go into a cache
_FILE_KEYS = ("image", "frame")


class FrameDataset(CacheDataset):
    """MONAI's ``CacheDataset`` of all frames, in memory, that says which frame cannot be read.

    The transforms up to the first random one run once, when the dataset is made: a damaged file ends the run, or is
    left out, at its start and not in the middle of an epoch.

    Args:
        data: rows with ``image`` (path) and whatever else the transforms need.
        transform: the transforms, a ``Compose``.
        bad_frames: what happens to frames that cannot be read; by default the first one is an error.
        progress: whether to show a progress bar.

    Raises:
        ValueError: when a frame cannot be read or transformed, or too many cannot.
    """

    _cache: list

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable,
        bad_frames: BadFrames | None = None,
        progress: bool = True,
    ) -> None:
        self.bad_frames = bad_frames or BadFrames()
        super().__init__(data, transform, progress=progress)

    def set_data(self, data: Sequence[Mapping[str, Any]]) -> None:
        """Cache these rows instead, and keep those that can be read."""
        super().set_data(data)
        kept = [index for index, item in enumerate(self._cache) if item is not None]
        self.data = [data[index] for index in kept]
        self._cache = [self._cache[index] for index in kept]
        self.cache_num = len(kept)
        self.bad_frames.close(len(data) - len(kept), len(data))

    def _load_cache_item(self, idx: int) -> Any:
        try:
            return super()._load_cache_item(idx)
        except Exception as error:
            self.bad_frames.add(self.data[idx], _named(self.data[idx], error))
            return None


class PersistentFrameDataset(PersistentDataset):
    """MONAI's ``PersistentDataset`` that says which frame cannot be read and never serves a stale one.

    The transforms up to the first random one run once for each frame, whichever run comes first, and their results stay
    in ``cache_dir`` for later runs: for sets that do not fit into memory, or whose reading is slow. They see only
    ``image`` and ``frame`` of a row; labels and groups are those of today's datalist. The name of a cached frame is a
    hash of its path, size and time of change, and of these transforms with all their settings and their code, see
    :func:`monai_fetalkd.utils.hashing.hash_of_transforms`: whatever changes, the frame is computed anew.

    Args:
        data: rows with ``image`` (path) and whatever else the transforms need.
        transform: the transforms, a ``Compose``.
        cache_dir: folder of the cache; made where it does not exist, and safe to delete.
        bad_frames: what happens to frames that cannot be read; by default the first one is an error.
        progress: whether to show a progress bar while frames are read for the first time.

    Raises:
        ValueError: when a frame cannot be read or transformed, too many cannot, or a transform cannot be pickled.
        OSError: when the disk of the cache is full.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable,
        cache_dir: str | os.PathLike[str],
        bad_frames: BadFrames | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__(data, transform, cache_dir, hash_func=_hash_of_file, hash_transform=_hash_of_transforms)
        bad_frames = bad_frames or BadFrames()
        kept = []
        with writing(cache_dir):
            for row in tqdm(data, desc="Loading dataset", disable=not progress):
                try:
                    self._cachecheck(row)
                except (ValueError, FileNotFoundError) as error:
                    bad_frames.add(row, _named(row, error))
                except RuntimeError as error:  # in which torch does not tell a full disk from others
                    raise machine_error(error) or OSError(
                        f"The cache of frames in '{cache_dir}' cannot be written, over '{tempfile.gettempdir()}': see "
                        "whether a disk is full."
                    ) from error
                else:
                    kept.append(row)
        self.data = kept
        bad_frames.close(len(data) - len(kept), len(data))

    def _pre_transform(self, item_transformed: Mapping[str, Any]) -> Any:
        try:
            return super()._pre_transform(item_transformed)
        except Exception as error:  # of reading, and not of the cache
            raise _named(item_transformed, error) from error

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> dict[Hashable, Any]:
        file = {key: item_transformed[key] for key in _FILE_KEYS if key in item_transformed}
        try:
            cached = super()._cachecheck(file)
        except (RuntimeError, EOFError):
            # torch cannot load what a killed process has half written; MONAI mends that for another format only
            torn = self.cache_dir / f"{_hash_of_file(file).decode()}{self.transform_hash}.pt"
            if not torn.is_file():
                raise
            torn.unlink()
            cached = super()._cachecheck(file)
        own = {key: value for key, value in item_transformed.items() if key not in file}
        return {**own, **cached}


def frame_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Callable,
    cache_dir: str | os.PathLike[str] | None = None,
    bad_frames: BadFrames | None = None,
    progress: bool = True,
    class_names: Sequence[str] | None = None,
) -> FrameDataset | PersistentFrameDataset:
    """The dataset of these frames, cached on disk where a folder is given, else in memory.

    Args:
        data: rows with ``image`` (path) and whatever else the transforms need.
        transform: the transforms, a ``Compose``.
        cache_dir: folder for :class:`PersistentFrameDataset`; None is :class:`FrameDataset`.
        bad_frames: what happens to frames that cannot be read; by default the first one is an error.
        progress: whether to show a progress bar.
        class_names: the class table, where labels may be files, see
            :func:`monai_fetalkd.ultrasound.data.annotated_rows`.

    Returns:
        The dataset.
    """
    if class_names is not None:
        data = annotated_rows(data, class_names)
    if cache_dir is None:
        return FrameDataset(data, transform, bad_frames, progress)
    return PersistentFrameDataset(data, transform, cache_dir, bad_frames, progress)


class FrameStream(IterableDataset):
    """MONAI's ``IterableDataset`` for inference: one frame after the other, none of them kept.

    The workers of a loader share the frames out: worker ``w`` of ``n`` reads frames ``w``, ``w + n``, ``w + 2n`` and so
    on. So all frames come in the order of ``data`` without workers, with one, or in batches of one; in batches of
    several each batch is in order, and frames of the batches that were read at the same time alternate. A frame that
    cannot be read moves up those after it in its worker. Of several ranks, each reads all frames.

    Args:
        data: rows with ``image`` (path) and whatever else the transforms need.
        transform: the transforms.
        bad_frames: what happens to frames that cannot be read; by default the first one is an error. Its limit holds
            for the frames of all workers together.

    Raises:
        ValueError: while iterating, when a frame cannot be read or transformed, or too many cannot.

    Example:
        >>> from monai.data import DataLoader
        >>> stream = FrameStream([{"image": str(index)} for index in range(4)], lambda row: row["image"])
        >>> list(DataLoader(stream, batch_size=2, num_workers=2))
        [['0', '2'], ['1', '3']]
    """

    def __init__(
        self, data: Sequence[Mapping[str, Any]], transform: Callable, bad_frames: BadFrames | None = None
    ) -> None:
        super().__init__(data, transform)
        self.bad_frames = bad_frames or BadFrames()
        # a mark for each frame, in memory that workers share: each writes those of its own frames, and counts all
        self._left_out = torch.zeros(len(data), dtype=torch.bool).share_memory_()

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for index in range(first, len(self.data), step):
            row = self.data[index]
            try:
                item = self.transform(row)
            except Exception as error:
                if not self._left_out[index]:  # else it is in the list since the pass before
                    self.bad_frames.add(row, _named(row, error))
                    self._left_out[index] = True
            else:
                yield item
        self.bad_frames.close(int(self._left_out.sum()), len(self.data))


def _named(row: Mapping[str, Any], error: BaseException) -> ValueError:
    """The error of a frame, told in one sentence; what MONAI said, pages of it, stays in the chain."""
    if (of_the_machine := machine_error(error)) is not None:  # the frame is not to blame
        raise of_the_machine
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FrameError):
            return cause
        cause = cause.__cause__
    if not os.path.exists(row["image"]):
        return ValueError(f"The frame '{row['image']}' does not exist.")
    named = ValueError(
        f"The frame '{row['image']}' cannot be read: it is damaged, truncated or of a kind that these transforms do "
        "not take; replace it or take it out of the datalist."
    )
    named.__cause__ = error
    return named


def _hash_of_file(row: Mapping[str, Any]) -> bytes:
    return hash_of_data(row, path_keys=["image"]).encode()


def _hash_of_transforms(transforms: Sequence[Callable]) -> bytes:
    return hash_of_transforms(transforms).encode()
