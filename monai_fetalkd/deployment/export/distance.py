"""How far a frame is from those of training, as part of an exported network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_fetalkd.taps import FeatureTaps

__all__ = ["FrameDistance", "fit_distance"]

_SHRINKAGE = 1e-3  # of the covariance towards a multiple of the identity
_LEAST = 1e-12  # of a variance, whose root has no gradient and no rounding at 0


class FrameDistance(nn.Module):
    r"""Mahalanobis distance of a frame to a set of frames, by the texture that an early layer sees.

    A frame is described by :math:`u`, mean and standard deviation over the positions of each channel. With mean
    :math:`m` and covariance :math:`C` of these over the set, and :math:`\lambda = 0.001` in :math:`n` dimensions, the
    distance is

    .. math:: d = \sqrt{(u - m)^T \Sigma^{-1} (u - m)}, \quad
        \Sigma = (1 - \lambda) C + \lambda \frac{\operatorname{tr} C}{n} I

    Early layers know speckle from other textures, which late ones have learned to ignore.

    Args:
        layer: name of the layer.
        statistics: :math:`u` of the frames of the set, ``[M, 2 channels]``.

    References:
        Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks",
        NeurIPS 2018, arXiv:1807.03888 (there with a mean for each class, and several layers).

    Example:
        >>> maps = torch.rand(50, 3, 8, 8)
        >>> distance = FrameDistance("layer1", FrameDistance.describe(maps))
        >>> bool(distance(5 * maps).min() > distance(maps).max())
        True
    """

    mean: Tensor
    root: Tensor

    def __init__(self, layer: str, statistics: Tensor) -> None:
        super().__init__()
        self.layer = layer
        exact = statistics.double()
        covariance = exact.T.cov()
        count = len(covariance)
        spread = covariance.trace() / count
        covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * spread.clamp_min(_LEAST) * torch.eye(count)
        root = torch.linalg.cholesky(torch.linalg.inv(covariance))
        self.register_buffer("mean", exact.mean(0).float())
        self.register_buffer("root", root.float())

    @staticmethod
    def describe(features: Tensor) -> Tensor:
        """Mean and standard deviation of each channel: ``[N, C, h, w]`` to ``[N, 2 C]``."""
        mean = features.mean((2, 3))
        variance = features.square().mean((2, 3)) - mean.square()
        return torch.cat([mean, variance.clamp_min(_LEAST).sqrt()], dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """The distances ``[N]`` of feature maps ``[N, C, h, w]``."""
        return ((self.describe(features) - self.mean) @ self.root).square().sum(1).sqrt()


@torch.no_grad()
def fit_distance(network: nn.Module, layer: str, frames: Sequence[NDArray[np.float32]]) -> FrameDistance | None:
    """The distance to these frames.

    Args:
        network: the network, in eval mode.
        layer: name of the layer that the frames are described by.
        frames: each ``[C, h, w]`` as the network takes them, two or more.

    Returns:
        The distance; None where the layer has no rows and columns.
    """
    taps = FeatureTaps(network, [layer], stop=True)
    described = []
    for frame in frames:
        with taps:
            features = network(torch.from_numpy(np.asarray(frame))[None])[layer]
        if features.ndim != 4:
            return None
        described.append(FrameDistance.describe(features))
    return FrameDistance(layer, torch.cat(described))
