"""Random numbers that depend on the seed and the epoch alone."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data import ShuffleBuffer, SmartCacheDataset
from monai.data.utils import set_rnd
from monai.utils.misc import MAX_SEED

__all__ = ["EpochSeeder"]


class EpochSeeder:
    """Seeds shuffling and random transforms anew at the start of each epoch, and starts the loader anew.

    Epoch ``e`` then draws the same batches whether the run reached it in one go or was killed and resumed before it,
    without any state of random generators in checkpoints. Each of several ranks has a stream of its own. An epoch
    shorter than the loader (``epoch_length``) begins at the loader's first batch like any other. Equal batches give
    weights equal to the last bit only on as many threads as before: their number decides how sums are rounded.

    A dataset that has a ``set_epoch``, such as :class:`monai_fetalkd.targets.FixedViews`, is told the epoch too,
    counted from 0 as everywhere in torch. An iterable dataset that keeps random state of its own needs one to be
    resumable; MONAI's ``ShuffleBuffer`` is seeded here.

    Args:
        dataset: the dataset whose random transforms are seeded when they run in this process; workers of a loader get
            their seeds from torch's generator.
        seed: seed of the run.

    Raises:
        ValueError: by the run, where the promise cannot be kept: persistent workers, whose transforms are seeded once,
            unless the dataset has a ``set_epoch``; and a ``SmartCacheDataset`` in a run that is resumed, as its items
            depend on the epochs before.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self._epochs = 0  # of this process

    def attach(self, engine: Engine) -> None:
        """Seed the epochs of this trainer."""
        engine.add_event_handler(Events.STARTED, self._check)
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that starts."""
        if self._epochs == 0 and engine.state.epoch > 1 and isinstance(self.dataset, SmartCacheDataset):
            raise ValueError(
                "A run on a SmartCacheDataset cannot be resumed, as the items of an epoch depend on those before it: "
                "use CacheDataset or PersistentDataset, or start anew without resume."
            )
        self._epochs += 1
        # large odd factors keep the streams of neighbouring seeds, epochs and ranks apart
        seed = (self.seed * 1_000_003 + engine.state.epoch + idist.get_rank() * 15_485_863) % MAX_SEED
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)
        if isinstance(self.dataset, ShuffleBuffer):
            self.dataset.seed = seed
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(engine.state.epoch - 1)
        # ignite would go on in the middle of a loader that is longer than an epoch
        if engine.state.dataloader is not None:
            engine.set_data(engine.state.dataloader)

    def _check(self, engine: Engine) -> None:
        self._epochs = 0
        loader = engine.state.dataloader
        if getattr(loader, "persistent_workers", False) and not hasattr(self.dataset, "set_epoch"):
            raise ValueError(
                "persistent_workers seed their random transforms once, so a resumed run would differ from one in one "
                "go: set persistent_workers to false for the training loader, or wrap its dataset in FixedViews."
            )
