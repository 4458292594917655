"""Region affinity distillation (Qin et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_fetalkd.losses._features import ClassFeatureLoss, unit

__all__ = ["RegionAffinityLoss"]


class RegionAffinityLoss(ClassFeatureLoss):
    r"""Squared difference of how alike student and teacher find the classes of an image.

    With :math:`\mu_{nk}` the mean feature of class :math:`k` over its positions in image :math:`n`, and
    :math:`r_{nij} = \cos(\mu_{ni}, \mu_{nj})`, the loss is the mean of

    .. math::
        (r^S_{nij} - r^T_{nij})^2

    over all images and pairs :math:`i < j` of classes that are both present in the image; it is zero where there is no
    such pair. A label outside of ``0 ... num_classes - 1``, such as 255 for "ignore", belongs to no class. Both
    networks may have features of any width. Maps of unequal size are averaged to the elementwise minimum of their
    sizes, and the label is resized to it by nearest neighbour.

    Other code bases: EMKD's code handles two classes, for which the value is the same as here. UGBKD sums over pairs,
    which is larger by their number, ``K * (K - 1) / 2``. A mean over the whole matrix of ``K * K`` would be ``(K - 1) /
    K`` of the value here. They have no common rule for absent classes: EMKD's value is NaN where class 0 is absent.

    Args:
        num_classes: number of classes, 2 or more.

    Raises:
        ValueError: when ``num_classes`` is less than 2.

    Example:
        >>> student = torch.tensor([[[[1.0, 1.0]], [[0.0, 1.0]]]])  # the two positions are at an angle of 45 degrees
        >>> teacher = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # of 90 degrees
        >>> RegionAffinityLoss(num_classes=2)(student, teacher, torch.tensor([[[0, 1]]]))
        tensor(0.5000)

    References:
        Qin D. et al. Efficient Medical Image Segmentation Based on Knowledge Distillation. IEEE Transactions on Medical
        Imaging 40(12), 2021, arXiv:2108.09987; code: github.com/EagleMIT/EMKD.
    """

    _LEAST_CLASSES = 2

    def _compare(self, student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
        difference = _affinity(student, masks) - _affinity(teacher, masks)
        present = masks.any(dim=2)
        pairs = (present.unsqueeze(1) & present.unsqueeze(2)).triu(diagonal=1)
        return (difference.square() * pairs).sum() / pairs.sum().clamp_min(1)


def _affinity(feature: Tensor, masks: Tensor) -> Tensor:
    """Cosine of each pair of classes, ``[N, K, K]``: that of their sums, as a cosine does not see the count."""
    sums = unit(torch.einsum("ncp,nkp->nkc", feature.flatten(2), masks.to(feature.dtype)), dim=2)
    return sums @ sums.transpose(1, 2)
