"""Similarity-preserving distillation (Tung & Mori 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_fetalkd.losses._features import unit
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["SimilarityPreservingLoss"]


class SimilarityPreservingLoss(_Loss):
    r"""Squared difference of how alike student and teacher find the samples of a batch.

    With :math:`F` the features flattened to one row for each of the :math:`N` samples, and :math:`G` the matrix
    :math:`F F^\top` with each row divided by its L2 norm:

    .. math::
        \mathcal{L} = \frac{1}{N^2} \sum_{i, j} (G^S_{ij} - G^T_{ij})^2

    The features of the networks need have nothing in common but the batch: neither width nor size. A batch of one
    sample costs nothing, so it teaches nothing; on several ranks each compares the samples of its own batch. The scale
    of a feature does not matter, and a sample whose feature is zero stays zero.

    Other code bases: RepDistiller, mdistiller and KD-Zoo divide by ``N * N`` too. The sizes of the values are small,
    and RepDistiller weighs them by 3000.

    Example:
        >>> student = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> teacher = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        >>> SimilarityPreservingLoss()(student, teacher)
        tensor(0.1992)

    References:
        Tung F., Mori G. Similarity-Preserving Knowledge Distillation. ICCV 2019, arXiv:1907.09682; code:
        github.com/HobbitLong/RepDistiller.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare the samples.

        Args:
            input: feature of the student, ``[N, ...]``.
            target: the teacher's, of the same batch. It never receives a gradient.

        Returns:
            A scalar.

        Raises:
            ValueError: when the features are not of one batch.
        """
        if min(input.ndim, target.ndim) < 2 or len(input) != len(target):
            raise ValueError(
                "student and teacher features must have shape [N, ...] and be of the same batch, "
                f"got {tuple(input.shape)} and {tuple(target.shape)}"
            )
        with torch.autocast(input.device.type, enabled=False):
            return (_similarity(full_precision(input)) - _similarity(full_precision(target.detach()))).square().mean()


def _similarity(feature: Tensor) -> Tensor:
    rows = feature.flatten(1)
    # the rows of the matrix do not see the scale of the batch, but its squares might leave the range of float32
    largest = rows.detach().abs().amax()
    rows = rows / largest.masked_fill(largest == 0, 1)
    return unit(rows @ rows.T, dim=1)
