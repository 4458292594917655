"""The dataset of ultrasound frames."""

from __future__ import annotations

from typing import Any

from monai.data import CacheDataset

__all__ = ["FrameDataset"]


class FrameDataset(CacheDataset):
    """MONAI's ``CacheDataset`` that names the file when a frame cannot be read.

    The transforms up to the first random one run once, when the dataset is made: a damaged file ends the run at its
    start, not in the middle of an epoch.

    Args:
        args: the arguments of :class:`monai.data.CacheDataset`.
        kwargs: the arguments of :class:`monai.data.CacheDataset`.

    Raises:
        ValueError: when a frame cannot be read or transformed.
    """

    def _load_cache_item(self, idx: int) -> Any:
        try:
            return super()._load_cache_item(idx)
        except Exception as error:
            # what the readers of MONAI said, pages of it, stays in the chain
            raise ValueError(
                f"The frame '{self.data[idx]['image']}' cannot be read: it is damaged, truncated or no image; "
                "replace it or take it out of the datalist."
            ) from error
