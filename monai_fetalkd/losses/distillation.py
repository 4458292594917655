"""Labels, soft targets and hidden layers in one weighted sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from monai_fetalkd._tensor import full_precision, plain
from monai_fetalkd.losses.feature import FeatureLoss
from monai_fetalkd.losses.soft_target import SoftTargetLoss, check_logits

__all__ = ["DistillationLoss"]

PairwiseLoss = Callable[[Tensor, Tensor], Tensor]


class DistillationLoss(_Loss):
    r"""Weighted sum of the loss on labels, the loss on soft targets and any losses on hidden layers.

    .. math::
        \mathcal{L} = w_\text{ce} \, \mathcal{L}_\text{label} + w_\text{kd} \, \mathcal{L}_\text{soft}
            + \sum_f w_f \, \mathcal{L}_f

    Each part has a name and a weight of its own. A part of weight 0 is neither computed nor reported, and what it alone
    would need may be missing: a first stage of attention transfer sets ``ce_weight`` and ``kd_weight`` to 0 and needs
    neither labels nor the teacher's logits.

    Other code bases use one ``alpha`` for two weights, in opposite senses: it weighs the soft targets in the code of
    Zagoruyko & Komodakis, here ``ce_weight=1 - alpha, kd_weight=alpha``, and the labels in torchdistill, here
    ``ce_weight=alpha, kd_weight=1 - alpha``.

    Args:
        ce_weight: weight of the loss on labels, reported as ``"ce"``.
        kd_weight: weight of :class:`SoftTargetLoss`, reported as ``"kd"``.
        temperature: temperature of the soft targets.
        feature_losses: losses on hidden layers by the name under which they are reported, e.g.
            ``{"at": AttentionTransferLoss()}``. Anything but a :class:`FeatureLoss` is wrapped in one.
        feature_weights: weights of the feature losses by name, 1 for a name left out.
        label_loss: called with the student's logits and the label, e.g. :class:`monai.losses.DiceCELoss`; None is the
            cross entropy with class indices of shape ``[N]``, ``[N, *spatial]`` or ``[N, 1, *spatial]``.

    Attributes:
        weights: weight of every part by name; a schedule may change its values between steps.

    Raises:
        ValueError: when a feature loss has a reserved name, a weight has no loss, is negative or not finite, or all
            weights are zero.

    Example:
        >>> from monai_fetalkd.losses import AttentionTransferLoss
        >>> loss = DistillationLoss(kd_weight=0.5, feature_losses={"at": AttentionTransferLoss()})
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
        >>> hidden_student, hidden_teacher = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
        >>> loss(student, teacher, torch.tensor([0]), hidden_student, hidden_teacher)
        {'loss': tensor(2.5425), 'ce': tensor(0.3133), 'kd': tensor(0.4585), 'at': tensor(2.)}

    References:
        Hinton G., Vinyals O., Dean J. Distilling the Knowledge in a Neural Network. 2015, arXiv:1503.02531.
    """

    def __init__(
        self,
        ce_weight: float = 1.0,
        kd_weight: float = 1.0,
        temperature: float = 4.0,
        feature_losses: Mapping[str, PairwiseLoss] | None = None,
        feature_weights: Mapping[str, float] | None = None,
        label_loss: PairwiseLoss | None = None,
    ) -> None:
        super().__init__()
        feature_losses, feature_weights = feature_losses or {}, feature_weights or {}
        if reserved := sorted({"loss", "ce", "kd"} & feature_losses.keys()):
            raise ValueError(f"feature_losses must not use the names 'loss', 'ce' and 'kd', got {reserved}")
        if unknown := sorted(feature_weights.keys() - feature_losses.keys()):
            raise ValueError(f"feature_weights must name feature losses of {sorted(feature_losses)}, got {unknown}")
        self.weights = {"ce": ce_weight, "kd": kd_weight}
        self.weights |= {name: feature_weights.get(name, 1.0) for name in feature_losses}
        if any(not 0 <= weight < math.inf for weight in self.weights.values()):
            raise ValueError(f"weights must be finite and not negative, got {self.weights}")
        if not any(self.weights.values()):
            raise ValueError(f"at least one weight must be above zero, got {self.weights}")
        self.label_loss = _cross_entropy if label_loss is None else label_loss
        self.soft_target_loss = SoftTargetLoss(temperature)
        self.feature_losses = nn.ModuleDict(
            {
                name: loss if isinstance(loss, FeatureLoss) else FeatureLoss(loss)
                for name, loss in feature_losses.items()
            }
        )

    def forward(
        self,
        input: Tensor,
        target: Tensor | None,
        label: Tensor | None = None,
        input_features: Tensor | Sequence[Tensor] = (),
        target_features: Tensor | Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """Compute every part whose weight is not zero, and their weighted sum.

        Args:
            input: logits of the student, ``[N, C, *spatial]``.
            target: logits of the teacher, of the same shape; None where ``kd_weight`` is 0.
            label: the label as the loss on labels takes it; None where ``ce_weight`` is 0.
            input_features: hidden layers of the student, as :class:`FeatureLoss` takes them; all feature losses see
                the same layers.
            target_features: the teacher's, in the same order.

        Returns:
            ``"loss"``, the weighted sum to differentiate, and each part by name: unweighted and detached.

        Raises:
            ValueError: when a part whose weight is not zero lacks its tensors, or they do not match.
        """
        parts = {}
        if self.weights["ce"]:
            parts["ce"] = self._label_part(input, label)
        if self.weights["kd"]:
            if target is None:
                raise ValueError("the logits of the teacher are missing: pass target, or set kd_weight to 0")
            parts["kd"] = self.soft_target_loss(input, target)
        for name, feature_loss in self.feature_losses.items():
            if self.weights[name]:
                if not len(input_features) or not len(target_features):
                    raise ValueError(
                        f"the features for {name!r} are missing: pass input_features and target_features, "
                        "or set its weight to 0"
                    )
                parts[name] = feature_loss(input_features, target_features)
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _label_part(self, logits: Tensor, label: Tensor | None) -> Tensor:
        if label is None:
            raise ValueError("the label is missing: pass label, or set ce_weight to 0")
        with torch.autocast(logits.device.type, enabled=False):
            return self.label_loss(full_precision(logits), plain(label))


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    check_logits(logits)
    indices = label.squeeze(1) if label.ndim == logits.ndim and label.shape[1] == 1 else label
    if indices.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            "labels must be class indices of shape [N, *spatial] or [N, 1, *spatial] beside logits [N, C, *spatial], "
            f"got {tuple(label.shape)} and {tuple(logits.shape)}"
        )
    return functional.cross_entropy(logits, indices.long())
