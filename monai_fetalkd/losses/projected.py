"""A learned projection of the student's features to the teacher's width (Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from monai_fetalkd.utils.tensor import full_precision

__all__ = ["ProjectedLoss"]


class ProjectedLoss(_Loss):
    r"""A loss on features that sees the student's through a 1 x 1 convolution, which is trained with the student.

    .. math::
        \mathcal{L} = \ell(W s + b, t)

    It lets a loss that compares channel with channel, such as :class:`~monai_fetalkd.losses.ChannelWiseLoss` or a hint,
    compare features of unequal width. Its parameters are to be given to the optimizer beside the student's; the
    trainers check that. The trainers keep them in the checkpoint of the stage, and the student itself does not have
    them. Layers of unequal width need a loss each.

    Other code bases: FitNets' regressor is a convolution large enough to make the sizes equal. CIRKD takes 1 x 1 as
    here; RepDistiller does for maps of equal size, with batch normalisation.

    Args:
        loss: called as ``loss(projected student, teacher)``, with the label if it ``uses_label``.
        student_channels: number of channels of the student's feature.
        teacher_channels: number of channels of the teacher's.
        spatial_dims: number of spatial dimensions, 1 to 3.

    Attributes:
        projector: the convolution.

    Raises:
        ValueError: when ``spatial_dims`` is none of 1, 2 and 3, or a number of channels is less than 1.

    Example:
        >>> from monai_fetalkd.losses import ChannelWiseLoss, DistillationLoss, FeatureLoss
        >>> hint = ProjectedLoss(ChannelWiseLoss(), student_channels=4, teacher_channels=16)
        >>> loss = DistillationLoss(feature_losses={"cwd": FeatureLoss(hint, layers=["layer3"])})
        >>> [name for name, _ in loss.named_parameters()]
        ['feature_losses.cwd.loss.projector.weight', 'feature_losses.cwd.loss.projector.bias']

    References:
        Romero A. et al. FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv:1412.6550.
    """

    def __init__(
        self, loss: Callable[..., Tensor], student_channels: int, teacher_channels: int, spatial_dims: int = 2
    ) -> None:
        if spatial_dims not in (1, 2, 3) or min(student_channels, teacher_channels) < 1:
            raise ValueError(
                "spatial_dims must be 1, 2 or 3 and the numbers of channels at least 1, "
                f"got {spatial_dims}, {student_channels} and {teacher_channels}"
            )
        super().__init__()
        self.loss = loss
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial_dims - 1]
        self.projector = convolution(student_channels, teacher_channels, kernel_size=1)

    @property
    def uses_label(self) -> bool:
        """Whether the loss is given the label."""
        return bool(getattr(self.loss, "uses_label", False))

    def forward(self, input: Tensor, target: Tensor, label: Tensor | None = None) -> Tensor:
        """Project the student's feature and compare it with the teacher's.

        Args:
            input: feature of the student, ``[N, student_channels, *spatial]``.
            target: the teacher's, ``[N, teacher_channels, *spatial]``. It never receives a gradient.
            label: the label, for a loss that uses it.

        Returns:
            What the loss returns.

        Raises:
            ValueError: when the features have other numbers of channels or of spatial dimensions.
        """
        weight = self.projector.weight
        if (
            input.ndim != weight.ndim
            or input.shape[1] != weight.shape[1]
            or target.ndim < 2
            or target.shape[1] != len(weight)
        ):
            raise ValueError(
                f"the projector takes features of {weight.shape[1]} channels of the student to {len(weight)} of the "
                f"teacher in {weight.ndim - 2} spatial dimensions, got {tuple(input.shape)} and {tuple(target.shape)}"
            )
        with torch.autocast(input.device.type, enabled=False):
            student, teacher = self.projector(full_precision(input)), full_precision(target.detach())
            return self.loss(student, teacher, label) if self.uses_label else self.loss(student, teacher)
