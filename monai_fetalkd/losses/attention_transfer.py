"""Attention transfer (Zagoruyko & Komodakis 2017)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from monai_fetalkd._tensor import full_precision
from monai_fetalkd.attention import AttentionKind, attention_map, check_attention_arguments
from monai_fetalkd.losses.feature import FeatureLoss

__all__ = ["AttentionTransferLoss"]

Mode = Literal["sum_squared", "mean_squared", "norm"]

_ADAPTIVE_AVG_POOL: dict[int, Callable[..., Tensor]] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


class AttentionTransferLoss(FeatureLoss):
    r"""Distance between the attention maps of student and teacher, summed over layers.

    With :math:`q` the attention map of a layer (see :func:`~monai_fetalkd.attention.attention_map`), flattened to
    :math:`P` positions and divided by its L2 norm for each sample, a layer contributes

    .. math::
        \text{sum\_squared:}  \quad & \frac{1}{N}  \sum_{n} \| q^S_n - q^T_n \|_2^2 \\
        \text{mean\_squared:} \quad & \frac{1}{NP} \sum_{n} \| q^S_n - q^T_n \|_2^2 \\
        \text{norm:}          \quad & \frac{1}{N}  \sum_{n} \| q^S_n - q^T_n \|_2

    The default lies between 0 and 2 for any map size, so that early layers with large maps and late layers with small
    ones count alike. An all-zero map stays zero when normalised, and no value or gradient is ever NaN because of it.

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

    Raises:
        ValueError: when an argument is none of the above.

    Example:
        >>> student = torch.tensor([[[0.0, 2.0, 0.0, 0.0]]])  # looks at the second position only
        >>> teacher = torch.tensor([[[0.0, 1.0, 0.0, 1.0]]])  # looks at the second and the fourth
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
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {get_args(Mode)}, got {mode!r}")
        check_attention_arguments(kind, power)
        super().__init__(partial(_attention_distance, mode=mode, kind=kind, power=power), layer_weights)
        self.kind = kind
        self.power = power
        self.condensation = f"{kind} attention map of power {float(power)}"

    def condense(self, teacher: Tensor, student: Tensor) -> Tensor:
        r"""Reduce a feature of the teacher to the feature of one channel, or of one position, with its attention map.

        That is :math:`A^{1/p}`, where :math:`A` is the attention map that the loss compares.

        Args:
            teacher: feature of the teacher, ``[N, C, *spatial]``.
            student: the student's feature, of which only the size counts.

        Returns:
            ``[N, 1, *size]`` for spatial maps, where size is the elementwise minimum of both sizes, and
            ``[N, C, 1, ...]`` for channel maps. It carries no gradient.

        Raises:
            ValueError: when the features do not match, as in :meth:`forward`.

        Example:
            >>> AttentionTransferLoss().condense(torch.tensor([[[3.0, 0.0], [4.0, 0.0]]]) / 5, torch.zeros(1, 1, 2))
            tensor([[[0.7071, 0.0000]]])
        """
        _check_dimensions(student, teacher)
        with torch.autocast(teacher.device.type, enabled=False):
            feature = full_precision(teacher.detach())
            if self.kind == "spatial":
                feature = _pool(feature, student)
            root = attention_map(feature, self.kind, self.power).pow(1 / self.power)
        return root.unsqueeze(1) if self.kind == "spatial" else root[(...,) + (None,) * (teacher.ndim - 2)]


def _attention_distance(student: Tensor, teacher: Tensor, mode: Mode, kind: AttentionKind, power: float) -> Tensor:
    _check_dimensions(student, teacher)
    if kind == "spatial":
        student, teacher = _pool_alike(student, teacher)
    map_student, map_teacher = attention_map(student, kind, power), attention_map(teacher, kind, power)
    if kind == "channel":  # the channels become the one axis that is pooled
        map_student, map_teacher = _pool_alike(map_student.unsqueeze(1), map_teacher.unsqueeze(1))
    q_student, q_teacher = (functional.normalize(values.flatten(1), dim=1) for values in (map_student, map_teacher))
    difference = q_student - q_teacher
    if mode == "norm":
        return torch.linalg.vector_norm(difference, dim=1).mean()
    squared = difference.square()
    return squared.mean() if mode == "mean_squared" else squared.sum(dim=1).mean()


def _check_dimensions(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != teacher.ndim:
        raise ValueError(
            "student and teacher features must have the same number of spatial dimensions, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )


def _pool_alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average both ``[N, C, *spatial]`` over space to the elementwise minimum of their spatial sizes."""
    return _pool(student, teacher), _pool(teacher, student)


def _pool(feature: Tensor, other: Tensor) -> Tensor:
    """Average a feature over space to the elementwise minimum of its own and the other's spatial size."""
    if feature.shape[2:] == other.shape[2:]:
        return feature
    size = tuple(map(min, feature.shape[2:], other.shape[2:]))
    if len(size) not in _ADAPTIVE_AVG_POOL:
        raise ValueError(
            "student and teacher features of unequal size must have one to three spatial dimensions, "
            f"got {tuple(feature.shape)} and {tuple(other.shape)}"
        )
    return _ADAPTIVE_AVG_POOL[len(size)](feature, size)
