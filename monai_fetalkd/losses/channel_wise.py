"""Channel-wise distillation (Shu et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_fetalkd.losses._features import check_maps, pool_alike
from monai_fetalkd.losses._logits import check_temperature, divisor, expected, prediction_weights
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["ChannelWiseLoss"]


class ChannelWiseLoss(_Loss):
    r"""Kullback-Leibler divergence of where each channel of the student is active from where the teacher's is.

    With :math:`\phi(x_{nc}) = \mathrm{softmax}(x_{nc} / T)` over the :math:`P` positions of a channel:

    .. math::
        \mathcal{L} = \frac{T^2}{N C} \sum_{n, c} \mathrm{KL}\big(\phi(t_{nc}) \,\|\, \phi(s_{nc})\big)

    It compares features or logits of dense predictions. Each channel is compared with the teacher's channel of the same
    number, so both need equally many: wrap it in a :class:`~monai_fetalkd.losses.ProjectedLoss` for features of other
    width. Maps of unequal size are averaged to the elementwise minimum of their sizes. A map of one position is always
    the same and teaches nothing, so it is refused.

    Other code bases: MMRazor, CIRKD and UGBKD divide by ``N * C`` too, and none by the number of positions. With
    projected features CIRKD divides by the student's own number of channels, before the projection.

    Args:
        temperature: how much both distributions are softened, above 0.

    Raises:
        ValueError: when ``temperature`` is not positive and finite.

    Example:
        >>> student, teacher = torch.tensor([[[[2.0, 0.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0, 0.0]]]])
        >>> ChannelWiseLoss()(student, teacher)
        tensor(1.3610)

    References:
        Shu C. et al. Channel-wise Knowledge Distillation for Dense Prediction. ICCV 2021, arXiv:2011.13256; code:
        github.com/open-mmlab/mmrazor.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        check_temperature(temperature)
        super().__init__()
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compare the channels.

        Args:
            input: features or logits of the student, ``[N, C, *spatial]``.
            target: the teacher's. They never receive a gradient.
            mask: which positions count, or how much: ``[N, *spatial]`` or ``[N, 1, *spatial]``. A sample in which none
                does counts nothing.

        Returns:
            A scalar.

        Raises:
            ValueError: when batch, channels or the number of spatial dimensions differ, or the maps have one position.
        """
        check_maps(input, target)
        if input.shape[1] != target.shape[1]:
            raise ValueError(
                "student and teacher features must have equally many channels, "
                f"got {tuple(input.shape)} and {tuple(target.shape)}: use a ProjectedLoss"
            )
        with torch.autocast(input.device.type, enabled=False):
            student, teacher = pool_alike(full_precision(input), full_precision(target.detach()))
            if student[0, 0].numel() == 1:
                raise ValueError(
                    "maps of one position are all the same and teach nothing, "
                    f"got {tuple(input.shape)} and {tuple(target.shape)}: tap earlier layers, or give larger images"
                )
            log_p, log_q = student.flatten(2) / self.temperature, teacher.flatten(2) / self.temperature
            counted = torch.ones_like(log_p[:, :, 0])
            if mask is not None:
                weights = prediction_weights(mask, student).flatten(1).unsqueeze(1)
                present = weights.amax(dim=2, keepdim=True) > 0
                counted = counted * present.squeeze(2)
                # where no position counts, all of them keep the sums below finite
                log_weights = weights.masked_fill(~present, 1).log()
                log_p, log_q = log_p + log_weights, log_q + log_weights
            log_p, log_q = log_p.log_softmax(dim=2), log_q.log_softmax(dim=2)
            divergence = expected(log_q.exp(), log_q - log_p).sum(dim=2)
            return self.temperature**2 * (divergence * counted).sum() / divisor(counted.sum())
