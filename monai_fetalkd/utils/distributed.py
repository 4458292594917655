"""A job of several processes, called ranks, on one machine or on several: how each of them joins it."""

from __future__ import annotations

import os

import ignite.distributed as idist
import torch
import torch.distributed as dist

__all__ = ["join_ranks"]


def join_ranks() -> torch.device:
    """Join the job that ``torchrun`` has started this process for, and take the device of this rank.

    The ranks talk by NCCL where there are GPUs, by gloo where there are none. A process that has joined stays as it is.

    Returns:
        The GPU of this rank's number on its machine, or the CPU.

    Raises:
        ValueError: when the process was not started by ``torchrun``, or its machine has fewer GPUs than ranks.
    """
    try:
        local_rank, local_ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    except (KeyError, ValueError):
        raise ValueError(
            "A config for several processes needs torchrun to start them: put 'torchrun --nproc_per_node=2' in place "
            "of 'python', or leave the config out."
        ) from None
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_ranks > torch.cuda.device_count():
            raise ValueError(
                f"torchrun has started {local_ranks} processes on a machine with {torch.cuda.device_count()} GPUs: "
                "give a --nproc_per_node of as many, or CUDA_VISIBLE_DEVICES='' to compute on the CPU."
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        idist.sync()  # ignite counts the ranks of each machine by asking all of them: here, where all of them are
    return device
