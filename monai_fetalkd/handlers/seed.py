"""Random numbers that depend on the seed and the epoch alone."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.utils.misc import MAX_SEED

__all__ = ["EpochSeeder"]


class EpochSeeder:
    """Seeds shuffling and random transforms anew at the start of each epoch.

    Epoch ``e`` then draws the same batches whether the run reached it in one go or was killed and resumed before it,
    without any state of random generators in checkpoints. Each of several ranks has a stream of its own.

    A dataset that has a ``set_epoch``, such as :class:`monai_fetalkd.targets.FixedViews`, is told the epoch too,
    counted from 0 as everywhere in torch.

    Args:
        dataset: the dataset whose random transforms are seeded when they run in this process; workers of a loader get
            their seeds from torch's generator.
        seed: seed of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed the epochs of this trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that starts."""
        # large odd factors keep the streams of neighbouring seeds, epochs and ranks apart
        seed = (self.seed * 1_000_003 + engine.state.epoch + idist.get_rank() * 15_485_863) % MAX_SEED
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(engine.state.epoch - 1)
