"""Attention transfer (Zagoruyko & Komodakis 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from monai_fetalkd.layouts import Layout, channels_first, check_layout
from monai_fetalkd.losses._features import pool_alike, pool_to, unit
from monai_fetalkd.losses.attention import AttentionKind, attention_map, check_attention_arguments
from monai_fetalkd.losses.feature import FeatureLoss
from monai_fetalkd.utils.tensor import full_precision

__all__ = ["AttentionTransferLoss"]

Mode = Literal["sum_squared", "mean_squared", "norm"]


class AttentionTransferLoss(FeatureLoss):
    r"""Distance between the attention maps of student and teacher, summed over layers.

    With :math:`q` the attention map of a layer (see :func:`~monai_fetalkd.losses.attention.attention_map`), flattened
    to :math:`P` positions and divided by its L2 norm for each sample, a layer contributes

    .. math::
        \text{sum\_squared:}  \quad & \frac{1}{N}  \sum_{n} \| q^S_n - q^T_n \|_2^2 \\
        \text{mean\_squared:} \quad & \frac{1}{NP} \sum_{n} \| q^S_n - q^T_n \|_2^2 \\
        \text{norm:}          \quad & \frac{1}{N}  \sum_{n} \| q^S_n - q^T_n \|_2

    The default lies between 0 and 2 for any map size, so that early layers with large maps and late layers with small
    ones count alike. The scale of a feature does not matter, down to the smallest that float32 can square (1e-19).
    An all-zero map stays zero when normalised, and no value or gradient is ever NaN because of it. A map of one
    position or one channel is constant when normalised and teaches nothing, so it is refused.

    **Maps of unequal size.** Spatial: both features are adaptively average pooled, axis by axis and before the power,
    to the elementwise minimum of their spatial sizes; nothing is pooled where the sizes agree. Channel: the longer map
    is adaptively average pooled to the length of the shorter, which gives the mean energy of groups of neighbouring
    channels. The teacher's groups are arbitrary but fixed, and the student's channels have no order of their own: each
    can learn to answer as one group does.

    **Other code bases.** ``"mean_squared"`` is the authors' code, RepDistiller, MMRazor and torchdistill's ``"code"``;
    it shrinks as maps grow, and a weight ``w`` there does what ``w / P`` does in the default mode. ``"norm"`` is the
    article's formula without its factor of beta / 2, and torchdistill's ``"paper"``. For maps of unequal size
    RepDistiller compares heights only and pools to a square, which is the rule above for square maps and distorts
    others; torchdistill refuses them.

    Args:
        mode: the distance, one of the three above.
        kind: ``"spatial"`` to attend to the teacher's positions, ``"channel"`` to its channels.
        power: exponent of the attention map, at least 1.
        layer_weights: one non-negative weight for each pair of layers; None weighs each by 1.
        layers: names of the student's layers to compare, see :class:`FeatureLoss`.
        layout: how the axes of both features are laid out, see :func:`~monai_fetalkd.layouts.channels_first`. By
            default ``[N, C, *spatial]``, and tokens for three axes, ``[N, L, C]``. The trainers of
            :mod:`monai_fetalkd.engines` bring features of both networks to ``[N, C, *spatial]`` themselves.

    Raises:
        ValueError: when an argument is none of the above.

    Example:
        >>> student = torch.tensor([[[[0.0, 2.0, 0.0, 0.0]]]])  # looks at the second position only
        >>> teacher = torch.tensor([[[[0.0, 1.0, 0.0, 1.0]]]])  # looks at the second and the fourth
        >>> AttentionTransferLoss()(student, teacher)
        tensor(0.5858)
        >>> AttentionTransferLoss(mode="mean_squared")(student, teacher)  # the same, over four positions
        tensor(0.1464)

    References:
        Zagoruyko S., Komodakis N. Paying More Attention to Attention: Improving the Performance of Convolutional Neural
        Networks via Attention Transfer. ICLR 2017, arXiv:1612.03928; code: github.com/szagoruyko/attention-transfer.
    """

    def __init__(
        self,
        mode: Mode = "sum_squared",
        kind: AttentionKind = "spatial",
        power: float = 2.0,
        layer_weights: Sequence[float] | None = None,
        layers: Sequence[str] | None = None,
        layout: Layout | None = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {get_args(Mode)}, got {mode!r}")
        check_attention_arguments(kind, power)
        check_layout(layout)
        super().__init__(partial(_attention_distance, mode=mode, kind=kind, power=power), layer_weights, layers)
        self.kind = kind
        self.power = power
        self.layout = layout
        self.reduced = f"{kind} attention map of power {float(power)}"

    def reduce(self, teacher: Tensor, student: Tensor, layout: Layout | None = None) -> Tensor:
        r"""Reduce a feature of the teacher to the feature of one channel, or of one position, with its attention map.

        That is :math:`A^{1/p}`, where :math:`A` is the attention map that the loss compares.

        Args:
            teacher: feature of the teacher, ``[N, C, *spatial]``.
            student: the student's feature, of which only the size counts.
            layout: layout of both, as in :meth:`forward`.

        Returns:
            ``[N, 1, *size]`` for spatial maps, where size is the elementwise minimum of both sizes, and
            ``[N, C, 1, ...]`` for channel maps. It carries no gradient.

        Raises:
            ValueError: when the features do not match, as in :meth:`forward`.

        Example:
            >>> teacher = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]]) / 5
            >>> AttentionTransferLoss().reduce(teacher, torch.zeros(1, 1, 1, 2))
            tensor([[[[0.7071, 0.0000]]]])
        """
        student, teacher = _comparable(student, teacher, self.layout if layout is None else layout)
        with torch.autocast(teacher.device.type, enabled=False):
            feature = full_precision(teacher.detach())
            if self.kind == "spatial":
                feature = pool_to(feature, student)
            root = attention_map(feature, self.kind, self.power, "channels_first").pow(1 / self.power)
        return root.unsqueeze(1) if self.kind == "spatial" else root[(...,) + (None,) * (teacher.ndim - 2)]

    def _pair(self, student: Tensor, teacher: Tensor, layout: Layout | None, label: Tensor | None) -> Tensor:
        return super()._pair(*_comparable(student, teacher, layout), "channels_first", label)


def _attention_distance(student: Tensor, teacher: Tensor, mode: Mode, kind: AttentionKind, power: float) -> Tensor:
    if kind == "spatial":
        student, teacher = pool_alike(student, teacher)
    map_student, map_teacher = (attention_map(values, kind, power, "channels_first") for values in (student, teacher))
    if kind == "channel":  # the channels become the one axis that is pooled
        map_student, map_teacher = pool_alike(map_student.unsqueeze(1), map_teacher.unsqueeze(1))
    q_student, q_teacher = unit(map_student.flatten(1), 1), unit(map_teacher.flatten(1), 1)
    if q_student.shape[1] == 1:
        raise ValueError(
            f"an attention map of one {'position' if kind == 'spatial' else 'channel'} teaches nothing, as it is "
            f"constant when normalised; the features are {tuple(student.shape)} and {tuple(teacher.shape)}: tap layers "
            "before the global pooling, or give larger images"
        )
    difference = q_student - q_teacher
    if mode == "norm":
        return torch.linalg.vector_norm(difference, dim=1).mean()
    squared = difference.square()
    return squared.mean() if mode == "mean_squared" else squared.sum(dim=1).mean()


def _comparable(student: Tensor, teacher: Tensor, layout: Layout | None) -> tuple[Tensor, Tensor]:
    """Both features channels first, of the same number of spatial dimensions."""
    shapes = f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
    if student.ndim != teacher.ndim:
        raise ValueError(f"student and teacher features must have the same number of spatial dimensions, {shapes}")
    if student.ndim < 3:
        raise ValueError(
            f"attention needs features of shape [N, C, *spatial] with at least one spatial dimension, {shapes}: tap a "
            "layer before the global pooling"
        )
    if layout is None and student.ndim == 3 and student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"features of three axes are read as tokens [N, L, C], and student and teacher have not the same number of "
            f"them, {shapes}: say layout 'channels_first' if they are [N, C, length], or give the grid of the tokens"
        )
    if layout is None and student.ndim > 3 and _seem_channels_last(student) and _seem_channels_last(teacher):
        raise ValueError(
            f"these features look like channels last, {shapes}: say layout 'channels_last' or 'channels_first'"
        )
    return channels_first(student, layout), channels_first(teacher, layout)


def _seem_channels_last(feature: Tensor) -> bool:
    """Whether all axes but the last are of one length, which is shorter: a square map, and then many channels."""
    _, *size, channels = feature.shape
    return len(set(size)) == 1 and 1 < size[0] < channels
