"""What a run will need in its later stages, checked at its start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from monai.networks.utils import eval_mode
from torch import nn

from monai_fetalkd.taps import FeatureTaps

__all__ = ["check_files", "check_layers"]


def check_layers(networks: Mapping[str, tuple[nn.Module, Sequence[str]]], image_shape: Sequence[int]) -> None:
    """Check that every network has its layers, that they pair up, and that a frame passes through each of them.

    Args:
        networks: network and the names of its layers, by the name that a message calls it.
        image_shape: channels and size of a frame or volume.

    Raises:
        ValueError: when a network has no such layer, a frame does not pass through it, or the numbers differ.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        >>> check_layers({"student": (network, ["1"])}, (1, 8, 8))
    """
    counts = {name: len(layers) for name, (_, layers) in networks.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of the {name}" for name, count in counts.items())
        raise ValueError(f"The layers pair up one for one, but there are {told}: name as many of each.")
    for name, (network, layers) in networks.items():
        frame = torch.zeros(1, *image_shape, device=next(network.parameters()).device)
        try:
            with eval_mode(network), FeatureTaps(network, layers) as taps:
                network(frame)
                taps.pop()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"The layers of the {name} cannot be read: {error}.") from error


def check_files(files: Mapping[str, str | os.PathLike[str]]) -> None:
    """Check that files which are read at the end of a run are there.

    Args:
        files: file by the name that it is given.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no mapping of names to paths.

    Example:
        >>> check_files({"patient 1": "/nowhere/stream.jsonl"})
        Traceback (most recent call last):
        ...
        FileNotFoundError: There is no file '/nowhere/stream.jsonl' for 'patient 1': correct the path or leave it out.
    """
    if not isinstance(files, Mapping):
        raise ValueError(f"Files are given by name, as {{'patient 1': 'stream.jsonl'}}, not as {files!r}.")
    for name, path in files.items():
        if not isinstance(path, str | os.PathLike):
            raise ValueError(f"'{name}' must name a file, not {path!r}.")
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no file '{path}' for '{name}': correct the path or leave it out.")
