"""A step of several ranks that equals the step of one rank on the whole batch."""

from __future__ import annotations

import ignite.distributed as idist
import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import nn

from .loss import loss_parts

__all__ = ["GlobalBatch"]


class GlobalBatch:
    r"""Makes a step of several ranks that of one rank with the same global batch; does nothing on one rank.

    ``DistributedDataParallel`` averages the gradients of ranks, whatever share of the batch each of them has. So the
    loss of a rank with :math:`n` of the :math:`N` frames is multiplied by :math:`nW / N` on its way to the gradients,
    :math:`W` being the number of ranks: exact for every loss that is a mean over frames, as those of this package are.
    After the gradients, ``loss`` and its parts in ``engine.state.output`` are means over the global batch on all ranks.
    After the last step of an epoch all ranks take the buffers of the first, so that they validate one network: between
    steps ``DistributedDataParallel`` leaves the batch statistics of each rank as they are.

    Args:
        network: the network that is trained, without its wrapper.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, engine: Trainer) -> None:
        """Follow this trainer, whose network is a ``DistributedDataParallel`` where there are several ranks."""
        if idist.get_world_size() > 1:
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._weigh)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._tell)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._share_buffers)

    def _weigh(self, engine: Trainer) -> None:
        output = engine.state.output
        loss, frames = output[CommonKeys.LOSS], len(output[CommonKeys.IMAGE])
        names = list(loss_parts(output))
        sums = (
            frames * torch.stack([torch.ones_like(loss), *(torch.as_tensor(output[name]) for name in names)]).detach()
        )
        dist.all_reduce(sums)
        engine.state.losses = dict(zip(names, (sums[1:] / sums[0]).tolist(), strict=True))
        output[CommonKeys.LOSS] = loss * (frames * dist.get_world_size() / sums[0])

    def _tell(self, engine: Trainer) -> None:
        engine.state.output.update(engine.state.losses)

    def _share_buffers(self, engine: Trainer) -> None:
        # a loader that does not know its length may end its first epoch at any step
        length = engine.state.epoch_length
        if length is None or engine.state.iteration % length == 0:
            for buffer in self.network.buffers():
                dist.broadcast(buffer, src=0)
