"""A loader whose dataset shows fixed views, for a teacher whose targets are stored."""

from __future__ import annotations

from typing import Any

from monai.data import DataLoader

from monai_fetalkd.targets import FixedViews

__all__ = ["loader_of_views"]


def loader_of_views(loader: Any, views: int = 0, seed: int = 0) -> Any:
    """The loader of a bundle over a fixed number of views of each item.

    Args:
        loader: a loader of torch or MONAI.
        views: number of views, see :class:`monai_fetalkd.targets.FixedViews`; 0 shows a new one each time. They take
            the place of those that the loader shows.
        seed: seed of the views.

    Returns:
        A loader with the same sampler, batches, workers and collation.

    Example:
        >>> import torch
        >>> from monai.data import Dataset
        >>> from monai.transforms import Compose, RandFlipd
        >>> dataset = Dataset([{"image": torch.rand(1, 4, 4)}] * 3, Compose([RandFlipd("image", 0.5)]))
        >>> [batch["view"].tolist() for batch in loader_of_views(DataLoader(dataset, batch_size=2), views=4)]
        [[0, 4], [8]]
    """
    fixed = isinstance(loader.dataset, FixedViews)
    if not views and not fixed:
        return loader
    dataset = loader.dataset.dataset if fixed else loader.dataset
    return DataLoader(
        FixedViews(dataset, views, seed) if views else dataset,
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
    )
