"""Which frames each rank of a job of several processes is given."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DistributedSampler

__all__ = ["GlobalBatchSampler"]


class GlobalBatchSampler(DistributedSampler):
    """Share the batches of one process out to several ranks, each frame to one of them.

    A loader of ``batch_size`` frames on each of ``W`` ranks steps through the same global batches as one process with
    ``W * batch_size`` frames in a batch. No frame is repeated to fill a batch up: in the last one some ranks may have a
    frame more than others, see :class:`monai_fetalkd.handlers.GlobalBatch`. A last batch of fewer frames than ranks is
    left out, since every rank needs a frame; with ``shuffle`` these are other frames in every epoch.

    The engines of MONAI tell it the epoch, by which it shuffles.

    Args:
        dataset: the dataset of the loader.
        batch_size: number of frames in a batch of one rank, that of the loader.
        shuffle: whether frames come in another order in every epoch.
        drop_last: whether to leave out a last batch that is not full. Do not ask the loader for it: it knows only the
            frames of its own rank.
        seed: seed of the order, the same on all ranks.
        num_replicas: number of ranks; that of the process group by default.
        rank: number of this rank; that in the process group by default.

    Raises:
        ValueError: when there are fewer frames than each rank needs.

    Example:
        >>> for rank in range(2):
        ...     list(GlobalBatchSampler(range(7), batch_size=2, shuffle=False, num_replicas=2, rank=rank))
        [0, 2, 4, 6]
        [1, 3, 5]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle, seed, drop_last=True)
        rest = len(dataset) % (batch_size * self.num_replicas)
        left_out = rest if drop_last or rest < self.num_replicas else 0
        self.total_size = len(dataset) - left_out
        if not self.total_size:
            raise ValueError(
                f"{len(dataset)} frames do not make one batch of {self.num_replicas} ranks with {batch_size} each: ask "
                "for fewer processes or a smaller batch_size."
            )
        self.num_samples = len(range(self.rank, self.total_size, self.num_replicas))
