"""A loader whose dataset shows fixed views, for a teacher whose targets are stored."""

from __future__ import annotations

from typing import Any

from monai.data import DataLoader
from torch.utils.data import SequentialSampler

from monai_fetalkd.targets import FixedViews

__all__ = ["loader_of_views"]


def loader_of_views(loader: Any, views: int, seed: int = 0) -> Any:
    """The loader of a bundle over a fixed number of views of each item.

    Args:
        loader: a loader of torch or MONAI.
        views: number of views, see :class:`monai_fetalkd.targets.FixedViews`; 0 leaves the loader as it is.
        seed: seed of the views.

    Returns:
        A loader with the same batches, workers and collation. It shuffles where the given one does.

    Example:
        >>> import torch
        >>> from monai.data import Dataset
        >>> from monai.transforms import Compose, RandFlipd
        >>> dataset = Dataset([{"image": torch.rand(1, 4, 4)}] * 3, Compose([RandFlipd("image", 0.5)]))
        >>> [batch["view"].tolist() for batch in loader_of_views(DataLoader(dataset, batch_size=2), views=4)]
        [[0, 4], [8]]
    """
    if not views:
        return loader
    return DataLoader(
        FixedViews(loader.dataset, views, seed),
        batch_size=loader.batch_size,
        shuffle=not isinstance(loader.sampler, SequentialSampler),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
    )
