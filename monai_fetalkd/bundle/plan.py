"""What a run will need in its later stages, checked at its start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from monai_fetalkd.layouts import spatial_feature
from monai_fetalkd.losses import FeatureLoss
from monai_fetalkd.taps import FeatureTaps

__all__ = ["check_files", "check_layers"]


def check_layers(
    networks: Mapping[str, tuple[nn.Module, Sequence[str]]], image_shape: Sequence[int], loss: FeatureLoss | None = None
) -> None:
    """Check that every network has its layers, that they pair up, and that a loss can compare them.

    Args:
        networks: network and the names of its layers, by the name that a message calls it; the student first, then the
            teacher.
        image_shape: channels and size of a frame or volume.
        loss: the loss on hidden layers; None checks the layers alone.

    Raises:
        ValueError: when a network has no such layer, a frame does not pass through it, the numbers differ, or the loss
            refuses the features, such as attention maps of one position.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        >>> check_layers({"student": (network, ["1"])}, (1, 8, 8))
    """
    counts = {name: len(layers) for name, (_, layers) in networks.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of the {name}" for name, count in counts.items())
        raise ValueError(f"The layers pair up one for one, but there are {told}: name as many of each.")
    features = [_features(name, network, layers, image_shape) for name, (network, layers) in networks.items()]
    if loss is not None:
        student, teacher = features
        for layer, pair in zip(next(iter(networks.values()))[1], zip(student, teacher, strict=True), strict=True):
            try:
                loss.per_layer([pair[0]], [pair[1]], "channels_first")
            except ValueError as error:
                raise ValueError(f"The layer '{layer}' cannot be compared with the teacher's: {error}.") from error


def _features(name: str, network: nn.Module, layers: Sequence[str], image_shape: Sequence[int]) -> list[Tensor]:
    frame = torch.zeros(1, *image_shape, device=next(network.parameters()).device)
    try:
        with eval_mode(network), FeatureTaps(network, layers) as taps:
            network(frame)
        return [spatial_feature(layer, value, None, image_shape[1:]) for layer, value in taps.pop().items()]
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
