"""Region affinity distillation (Qin et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_fetalkd.losses._features import check_maps, pool_alike, unit
from monai_fetalkd.losses._labels import check_num_classes, class_masks, resize_nearest
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["RegionAffinityLoss"]


class RegionAffinityLoss(_Loss):
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

    uses_label = True

    def __init__(self, num_classes: int) -> None:
        check_num_classes(num_classes, least=2)
        super().__init__()
        self.num_classes = num_classes

    def forward(self, input: Tensor, target: Tensor, label: Tensor) -> Tensor:
        """Compare the classes.

        Args:
            input: feature of the student, ``[N, C, *spatial]``.
            target: the teacher's, of any number of channels. It never receives a gradient.
            label: class indices, ``[N, *spatial]`` or ``[N, 1, *spatial]``, of any spatial size.

        Returns:
            A scalar.

        Raises:
            ValueError: when batch or the number of spatial dimensions differ, or the label holds no class indices.
        """
        check_maps(input, target)
        with torch.autocast(input.device.type, enabled=False):
            student, teacher = pool_alike(full_precision(input), full_precision(target.detach()))
            label = resize_nearest(label, student.shape[2:])
            masks = class_masks(label, student, self.num_classes).flatten(2)
            difference = _affinity(student, masks) - _affinity(teacher, masks)
            present = masks.any(dim=2)
            pairs = (present.unsqueeze(1) & present.unsqueeze(2)).triu(diagonal=1)
            return (difference.square() * pairs).sum() / pairs.sum().clamp_min(1)


def _affinity(feature: Tensor, masks: Tensor) -> Tensor:
    """Cosine of each pair of classes, ``[N, K, K]``: that of their sums, as a cosine does not see the count."""
    sums = unit(torch.einsum("ncp,nkp->nkc", feature.flatten(2), masks.to(feature.dtype)), dim=2)
    return sums @ sums.transpose(1, 2)
