"""Where networks look: attention maps of hidden layers, and Grad-CAM."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike

import torch
from monai.visualize import GradCAM
from torch import Tensor, nn
from torch.nn import functional

from monai_fetalkd.losses.attention import attention_map
from monai_fetalkd.taps import FeatureTaps
from monai_fetalkd.utils.checkpoints import load_weights

__all__ = ["attention_maps", "grad_cam", "loaded_copy", "similarity"]

_BATCH = 8  # maps of a large teacher fill a laptop's memory otherwise


def loaded_copy(network: nn.Module, path: str | PathLike[str]) -> nn.Module:
    """A copy of a network with the weights of a checkpoint, on the CPU and in eval mode.

    Args:
        network: the network, which stays as it is.
        path: its checkpoint.

    Returns:
        The copy, all of whose parameters take gradients.

    Raises:
        FileNotFoundError, ValueError: see :func:`~monai_fetalkd.utils.checkpoints.load_weights`.
    """
    network = copy.deepcopy(network)
    load_weights(network, path)
    return network.cpu().requires_grad_(True).eval()  # Grad-CAM needs the gradients that a frozen teacher has not


@torch.no_grad()
def attention_maps(network: nn.Module, layers: Sequence[str], images: Tensor) -> list[Tensor]:
    """Spatial attention maps of hidden layers.

    Args:
        network: the network, in eval mode.
        layers: names of the layers.
        images: frames, ``[N, C, H, W]``.

    Returns:
        For each layer its maps ``[N, h, w]``; see :func:`~monai_fetalkd.losses.attention.attention_map`.
    """
    taps = FeatureTaps(network, layers, stop=True)
    batches = []
    for batch in images.split(_BATCH):
        with taps:
            features = network(batch)
        batches.append([attention_map(feature) for feature in features.values()])
    return [torch.cat(maps) for maps in zip(*batches, strict=True)]


def similarity(first: Tensor, second: Tensor) -> list[float]:
    """Cosine similarity of two attention maps of each frame: 1 where both look at the same places in the same measure.

    Args:
        first: maps ``[N, h, w]``.
        second: maps ``[N, h', w']``; the larger map is average pooled to the size of the smaller.

    Returns:
        A number between 0 and 1 for each frame.

    Example:
        >>> similarity(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 1.0]]]))
        [0.7071067690849304]
    """
    size = (min(first.shape[1], second.shape[1]), min(first.shape[2], second.shape[2]))
    one, other = (functional.adaptive_avg_pool2d(maps[:, None], size).flatten(1) for maps in (first, second))
    return functional.cosine_similarity(one, other).tolist()


def grad_cam(network: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """MONAI's Grad-CAM for the class that the network decides for.

    Args:
        network: the network, a copy that may keep Grad-CAM's hooks.
        layer: name of the layer whose activations are weighed.
        images: frames, ``[N, C, H, W]``.

    Returns:
        The maps ``[N, h, w]``, and the probabilities ``[N, classes]``.
    """
    cam = GradCAM(network, layer.partition(":")[0])
    # one by one: the classes of a batch would mix in the gradients, as MONAI sums the scores of all of them
    maps = [cam.compute_map(image[None])[0, 0] for image in images]
    with torch.no_grad():
        probabilities = network(images).softmax(dim=1)
    return torch.stack(maps).detach(), probabilities
