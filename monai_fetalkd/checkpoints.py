"""Checkpoints written whole, read safely, and told plainly where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor, nn

from monai_fetalkd.files import written_whole

__all__ = ["copy_weights", "load_weights", "read_checkpoint", "read_state_dict", "save_weights"]


def load_weights(network: nn.Module, path: str | PathLike[str]) -> None:
    """Load a checkpoint of exactly this network, wherever it was trained.

    Args:
        network: the network to fill, in place.
        path: file as for :func:`read_state_dict`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read as weights, or belongs to another network; the message lists what differs and
            the network stays as it was.

    Example:
        >>> import os, tempfile
        >>> source, copy = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> path = os.path.join(tempfile.mkdtemp(), "model.pt")
        >>> torch.save(source.state_dict(), path)
        >>> load_weights(copy, path)
        >>> torch.equal(copy.weight, source.weight)
        True
    """
    copy_weights(network, read_state_dict(path), path)


@idist.one_rank_only()
def save_weights(network: nn.Module, path: str | PathLike[str]) -> None:
    """Write the state dict of a network, whole or not at all; an older file is replaced.

    Of several ranks, the first writes.

    Args:
        network: the network.
        path: the file to write; its folder is made where it does not exist.
    """
    with written_whole(path) as temporary:
        torch.save(network.state_dict(), temporary)


def read_checkpoint(path: str | PathLike[str], map_location: str | torch.device = "cpu") -> Any:
    """Read a file that ``torch.save`` wrote; only tensors and plain Python values are unpickled, never code.

    Args:
        path: the file.
        map_location: device for the tensors.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, of another format, or holds other objects.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"The checkpoint '{path}' does not exist: train its stage first or give its path.")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        # torch answers a damaged, foreign or unsafe file with half a dozen types of exception and pages of advice
        reason = str(error).split("\n", maxsplit=1)[0]
        raise ValueError(f"The file '{path}' cannot be read as a checkpoint: {reason}") from error


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read the weights of one network.

    Args:
        path: file with a state dict, or with a mapping that holds one under ``"model"``, as MONAI's handlers write it.

    Returns:
        Tensor by name, on the CPU.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, or holds no state dict.
    """
    content = read_checkpoint(path)
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"The file '{path}' holds no state dict of tensors, so no weights can be loaded from it.")
    return dict(content)


def copy_weights(network: nn.Module, weights: Mapping[str, Tensor], path: str | PathLike[str]) -> None:
    """Copy weights into a network whose names and shapes they match to the last one.

    Args:
        network: the network to fill, in place.
        weights: a state dict.
        path: where the weights come from, for the message.

    Raises:
        ValueError: when a name or shape differs; the message lists the differences and the network stays as it was.
    """
    own = network.state_dict()
    differences = [f"{name} is missing" for name in own if name not in weights]
    differences += [f"{name} is unknown" for name in weights if name not in own]
    differences += [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if differences:
        shown = "; ".join(differences[:8]) + (f"; and {len(differences) - 8} more" if len(differences) > 8 else "")
        raise ValueError(
            f"The checkpoint '{path}' belongs to another network than this {type(network).__name__}: {shown}."
        )
    network.load_state_dict(weights)
