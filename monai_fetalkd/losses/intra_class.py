"""Intra-class feature variation distillation (Wang et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_fetalkd.losses._features import ClassFeatureLoss, unit

__all__ = ["IntraClassLoss"]


class IntraClassLoss(ClassFeatureLoss):
    r"""Squared difference of how close student and teacher find each position to the mean of its class.

    With :math:`\mu_{nk}` the mean feature of class :math:`k` over its positions in image :math:`n`, and
    :math:`m_{np} = \cos(x_{np}, \mu_{nk})` for the class :math:`k` of position :math:`p`:

    .. math::
        \mathcal{L} = \frac{1}{N P} \sum_{n, p} (m^S_{np} - m^T_{np})^2

    The gradient flows through the means too. A class that is absent from an image has no positions there. A label
    outside of ``0 ... num_classes - 1``, such as 255 for "ignore", belongs to no class: its positions add nothing, but
    count in :math:`P`. Both networks may have features of any width. Maps of unequal size are averaged to the
    elementwise minimum of their sizes, and the label is resized to it by nearest neighbour.

    Other code bases: CIRKD divides by ``N * P`` too; UGBKD as well, but leaves class 0 out where there are two classes.

    Args:
        num_classes: number of classes, 1 or more.

    Raises:
        ValueError: when ``num_classes`` is less than 1.

    Example:
        >>> student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # 45 degrees from the mean of the two positions
        >>> teacher = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])  # both positions are the mean
        >>> IntraClassLoss(num_classes=1)(student, teacher, torch.tensor([[[0, 0]]]))
        tensor(0.0858)

    References:
        Wang Y. et al. Intra-class Feature Variation Distillation for Semantic Segmentation. ECCV 2020; code:
        github.com/winycg/CIRKD.
    """

    def _compare(self, student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
        difference = _closeness(student, masks) - _closeness(teacher, masks)
        return difference.square().mean()


def _closeness(feature: Tensor, masks: Tensor) -> Tensor:
    """Cosine of each position to the mean of its class, ``[N, P]``; 0 for a position of no class."""
    feature, masks = feature.flatten(2), masks.to(feature.dtype)
    # the sum in place of the mean, as a cosine does not see the count
    sums = unit(torch.einsum("ncp,nkp->nkc", feature, masks), dim=2)
    return (torch.einsum("nkc,ncp->nkp", sums, unit(feature, dim=1)) * masks).sum(dim=1)
