"""What a run will do and need in its later stages, told and checked at its start."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from monai_fetalkd.handlers.progress import duration
from monai_fetalkd.layouts import spatial_feature
from monai_fetalkd.losses import FeatureLoss
from monai_fetalkd.taps import FeatureTaps

__all__ = ["check_files", "check_layers", "tell_plan"]

logger = logging.getLogger(__name__)

_LONGEST_TRIAL = 2.0  # seconds


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


@idist.one_rank_only()
def tell_plan(
    stages: Mapping[str, tuple[nn.Module, int]],
    image_shape: Sequence[int],
    frames: int,
    batch_size: int,
    inferer: Callable[[Tensor, nn.Module], Tensor],
    resume: bool = False,
) -> None:
    """Log the networks, the epochs, and how long the stages will take at least, before the first of them.

    A batch passes forward and backward through each network, in evaluation mode, and leaves no trace in it. The time
    told is that of such passes: reading, augmentation, validation and the teacher of a distillation come on top.

    Args:
        stages: network and number of epochs, by the name of the stage.
        image_shape: channels and size of a frame or volume.
        frames: number of training frames.
        batch_size: frames of a batch.
        inferer: how a network is called in training.
        resume: whether a run goes on that may have finished a part of it.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> tell_plan({"teacher": (network, 3)}, (1, 8, 8), frames=16, batch_size=4, inferer=lambda x, net: net(x))
    """
    seconds: dict[nn.Module, float] = {}
    for name, (network, epochs) in stages.items():
        if network not in seconds:
            seconds[network] = _seconds_of_a_frame(network, image_shape, batch_size, inferer)
        parameters = sum(weight.numel() for weight in network.parameters()) / 1e6
        time_left = duration(seconds[network] * frames * epochs)
        kind = type(network).__name__
        logger.info("%s: %s of %.2f M parameters, %d epochs, at least %s", name, kind, parameters, epochs, time_left)
    total = sum(seconds[network] * frames * epochs for network, epochs in stages.values())
    size = " x ".join(map(str, image_shape[1:]))
    told = "all stages: at least %s for the steps on %d images of %s; reading, augmenting and validation come on top%s"
    logger.info(told, duration(total), frames, size, ", and what has been done already comes off" if resume else "")


def _seconds_of_a_frame(
    network: nn.Module, image_shape: Sequence[int], batch_size: int, inferer: Callable[[Tensor, nn.Module], Any]
) -> float:
    """Of a whole batch where that is quick, else of one frame; each time the second pass, as the first prepares it."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    device = next(network.parameters()).device
    seconds = 0.0
    with eval_mode(network), torch.enable_grad():
        for count in (1, 1, batch_size, batch_size):
            if seconds * count > _LONGEST_TRIAL:
                break
            images = torch.zeros(count, *image_shape, device=device)
            start = time.perf_counter()
            loss = inferer(images, network).float().mean()
            float(
                sum(slope.sum() for slope in torch.autograd.grad(loss, weights, allow_unused=True) if slope is not None)
            )
            seconds = (time.perf_counter() - start) / count
    return seconds
