"""Soft Dice and Jaccard distance to the teacher's probabilities (Wang et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_fetalkd.losses._logits import check_logits, check_same_shape, prediction_weights
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["SoftDiceLoss"]


class SoftDiceLoss(_Loss):
    r"""One minus the Dice or Jaccard index of the probabilities of student and teacher.

    For each class of each image, with the probabilities :math:`p` of the student and :math:`q` of the teacher as
    vectors over the positions, :math:`|x| = \sum |x_i|` and :math:`I = \frac{1}{2} (|p| + |q| - |p - q|)`:

    .. math::
        \text{Dice:} \quad & 1 - \frac{I + \varepsilon}{\frac{1}{2} (|p| + |q|) + \varepsilon} \\
        \text{Jaccard:} \quad & 1 - \frac{I + \varepsilon}{|p| + |q| - I + \varepsilon}

    and the mean over all classes and images. The intersection :math:`I` is the sum of the smaller of both values, so
    the loss is zero where student and teacher agree; that of MONAI's ``DiceLoss`` is the sum of products, which soft
    targets minimise by an answer of their own. A class that neither network sees costs next to nothing, as
    :math:`\varepsilon` outweighs it.

    Other code bases: the authors' ``mIoUD`` is ``batch=True`` and their ``mIoUI`` over all classes is ``batch=False``;
    their choice of the classes that are present, their class weights and their focal exponent are not here. MONAI's
    ``smooth_nr`` and ``smooth_dr`` are :math:`2 \varepsilon`.

    Args:
        jaccard: the Jaccard index in place of the Dice index.
        squared: squares in all three sums, :math:`|x| = \sum x_i^2`; then :math:`I` is the sum of products.
        batch: sum over all images of the batch before the ratio, as for classes that few images show.
        smooth: :math:`\varepsilon`, above 0.
        sigmoid: the classes are independent, each with a probability of its own.

    Raises:
        ValueError: when ``smooth`` is not positive and finite.

    Example:
        >>> student, teacher = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
        >>> SoftDiceLoss()(student, teacher), SoftDiceLoss(jaccard=True)(student, teacher)
        (tensor(0.1011), tensor(0.1837))

    References:
        Wang Z. et al. Jaccard Metric Losses: Optimizing the Jaccard Index with Soft Labels. NeurIPS 2023,
        arXiv:2302.05666, and Dice Semimetric Losses: Optimizing the Dice Score with Soft Labels. MICCAI 2023,
        arXiv:2303.16296; code: github.com/zifuwanggg/JDTLosses.
    """

    def __init__(
        self,
        jaccard: bool = False,
        squared: bool = False,
        batch: bool = False,
        smooth: float = 1e-3,
        sigmoid: bool = False,
    ) -> None:
        if not 0 < smooth < math.inf:
            raise ValueError(f"smooth must be positive and finite, got {smooth}")
        super().__init__()
        self.jaccard = jaccard
        self.squared = squared
        self.batch = batch
        self.smooth = smooth
        self.sigmoid = sigmoid

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compare the logits of student and teacher.

        Args:
            input: logits of the student, ``[N, C, *spatial]``.
            target: the teacher's, of the same shape. They never receive a gradient.
            mask: which positions count, or how much: ``[N, *spatial]`` or ``[N, 1, *spatial]``.

        Returns:
            A scalar.

        Raises:
            ValueError: when shapes differ or are not those of logits, or of the mask.
        """
        check_same_shape(input, target)
        if not self.sigmoid:
            check_logits(input)
        with torch.autocast(input.device.type, enabled=False):
            student, teacher = (self._probabilities(full_precision(logits)) for logits in (input, target.detach()))
            if mask is not None:
                weights = prediction_weights(mask, student).unsqueeze(1)
                student, teacher = student * weights, teacher * weights
            total = self._size(student) + self._size(teacher)
            intersection = (total - self._size(student - teacher)) / 2
            whole = total - intersection if self.jaccard else total / 2
            return (1 - (intersection + self.smooth) / (whole + self.smooth)).mean()

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.sigmoid else logits.softmax(dim=1)

    def _size(self, values: Tensor) -> Tensor:
        values = values.square() if self.squared else values.abs()
        values = values.flatten(2).sum(dim=2) if values.ndim > 2 else values
        return values.sum(dim=0) if self.batch else values
