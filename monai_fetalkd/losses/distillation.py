"""Labels, soft targets and hidden layers in one weighted sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from monai_fetalkd.layouts import Layout
from monai_fetalkd.losses._labels import NO_LABEL, loss_on_labels, resize_nearest
from monai_fetalkd.losses.feature import FeatureLoss, Features
from monai_fetalkd.losses.label import LabelLoss, is_sigmoid_head
from monai_fetalkd.losses.soft_target import SigmoidSoftTargetLoss, SoftTargetLoss
from monai_fetalkd.utils.tensor import full_precision, plain

__all__ = ["DistillationLoss"]

PairwiseLoss = Callable[..., Tensor]

# entries of a trainer's output, and the parts that every distillation has
_RESERVED = {"image", "label", "pred", "loss", "ce", "kd"}


class DistillationLoss(_Loss):
    r"""Weighted sum of the loss on labels, the loss on soft targets and any losses on hidden layers.

    .. math::
        \mathcal{L} = w_\text{ce} \, \mathcal{L}_\text{label} + w_\text{kd} \, \mathcal{L}_\text{soft}
            + \sum_f w_f \, \mathcal{L}_f

    Each part has a name and a weight of its own. A part of weight 0 is neither computed nor reported, and what it alone
    would need may be missing: a first stage of attention transfer sets ``ce_weight`` and ``kd_weight`` to 0 and needs
    neither labels nor the teacher's logits.

    **Heads.** The soft targets follow the loss on labels: for one with ``sigmoid=True``, such as MONAI's
    ``DiceLoss(sigmoid=True)``, they are those of independent classes (:class:`SigmoidSoftTargetLoss`), else those of
    exclusive ones (:class:`SoftTargetLoss`). A label that the loss ignores (its ``ignore_index``) is left out of the
    soft targets too.

    **Items without a label.** One whose label is all -100 (torch's default for an index to ignore) takes part in the
    soft targets and hidden layers alone. The loss on labels, whatever it is, is given the other items, and is zero in a
    batch without any.

    **Maps as labels.** A label of the shape of the logits, boolean or of integers, is given to the loss on labels in
    the type of the logits; class indices stay as they are.

    **Deep supervision.** ``input`` may be the list of logits of all heads of a student, the main one first. The loss on
    labels gets the list, so it must be MONAI's ``DeepSupervisionLoss``. Each head is compared with the teacher's
    logits, averaged to its size, and the values are summed with the weights of the ``DeepSupervisionLoss``.

    **Losses that see the label.** A loss on soft targets or features with a class attribute ``uses_label = True``, such
    as :class:`~monai_fetalkd.losses.DecoupledLoss`, is given the label of the batch too.

    Other code bases use one ``alpha`` for two weights, in opposite senses: it weighs the soft targets in the code of
    Zagoruyko & Komodakis, here ``ce_weight=1 - alpha, kd_weight=alpha``, and the labels in torchdistill, here
    ``ce_weight=alpha, kd_weight=1 - alpha``.

    Args:
        ce_weight: weight of the loss on labels, reported as ``"ce"``.
        kd_weight: weight of the loss on soft targets, reported as ``"kd"``.
        temperature: temperature of the soft targets, 4 by default; not beside ``soft_target_loss``, which has its own.
        feature_losses: losses on hidden layers by the name under which they are reported, e.g.
            ``{"at": AttentionTransferLoss()}``. Anything but a :class:`FeatureLoss` is wrapped in one.
        feature_weights: weights of the feature losses by name, 1 for a name left out.
        label_loss: called with the student's logits and the label, e.g. :class:`monai.losses.DiceCELoss`; None is
            :class:`LabelLoss`, cross entropy.
        soft_target_loss: called with the logits of student and teacher, with ``label=`` if it ``uses_label``, and with
            ``mask=`` where some predictions do not count; None as described above.

    Attributes:
        weights: weight of every part by name; a schedule may change its values between steps.

    Raises:
        ValueError: when a feature loss has a reserved name, a weight has no loss, is negative or not finite, or all
            weights are zero.

    Example:
        >>> from monai_fetalkd.losses import AttentionTransferLoss
        >>> loss = DistillationLoss(kd_weight=0.5, feature_losses={"at": AttentionTransferLoss()})
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
        >>> hidden_student, hidden_teacher = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
        >>> loss(student, teacher, torch.tensor([0]), hidden_student, hidden_teacher)
        {'loss': tensor(2.5425), 'ce': tensor(0.3133), 'kd': tensor(0.4585), 'at': tensor(2.)}

    References:
        Hinton G., Vinyals O., Dean J. Distilling the Knowledge in a Neural Network. 2015, arXiv:1503.02531.
    """

    def __init__(
        self,
        ce_weight: float = 1.0,
        kd_weight: float = 1.0,
        temperature: float | None = None,
        feature_losses: Mapping[str, PairwiseLoss] | None = None,
        feature_weights: Mapping[str, float] | None = None,
        label_loss: PairwiseLoss | None = None,
        soft_target_loss: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        feature_losses, feature_weights = feature_losses or {}, feature_weights or {}
        if reserved := sorted(_RESERVED & feature_losses.keys()):
            raise ValueError(f"feature_losses must not use the names {sorted(_RESERVED)}, got {reserved}")
        if unknown := sorted(feature_weights.keys() - feature_losses.keys()):
            raise ValueError(f"feature_weights must name feature losses of {sorted(feature_losses)}, got {unknown}")
        self.weights = {"ce": ce_weight, "kd": kd_weight}
        self.weights |= {name: feature_weights.get(name, 1.0) for name in feature_losses}
        if any(not 0 <= weight < math.inf for weight in self.weights.values()):
            raise ValueError(f"weights must be finite and not negative, got {self.weights}")
        if not any(self.weights.values()):
            raise ValueError(f"at least one weight must be above zero, got {self.weights}")
        if soft_target_loss is not None and temperature is not None:
            raise ValueError("give either the temperature or a soft_target_loss, which has a temperature of its own")
        self.label_loss = LabelLoss() if label_loss is None else label_loss
        if soft_target_loss is None:
            kind = SigmoidSoftTargetLoss if is_sigmoid_head(self.label_loss) else SoftTargetLoss
            soft_target_loss = kind(4.0 if temperature is None else temperature)
        self.soft_target_loss = soft_target_loss
        self.feature_losses = nn.ModuleDict(
            {
                name: loss if isinstance(loss, FeatureLoss) else FeatureLoss(loss)
                for name, loss in feature_losses.items()
            }
        )

    def all_feature_losses(self) -> list[FeatureLoss]:
        """The losses on hidden layers."""
        return [cast(FeatureLoss, loss) for loss in self.feature_losses.values()]

    def active_feature_losses(self) -> dict[str, FeatureLoss]:
        """The losses on hidden layers whose weight is not zero now, by name."""
        losses = zip(self.feature_losses, self.all_feature_losses(), strict=True)
        return {name: loss for name, loss in losses if self.weights[name]}

    def forward(
        self,
        input: Tensor | Sequence[Tensor],
        target: Tensor | None,
        label: Tensor | None = None,
        input_features: Features = (),
        target_features: Features = (),
        mask: Tensor | None = None,
        layout: Layout | None = None,
    ) -> dict[str, Tensor]:
        """Compute every part whose weight is not zero, and their weighted sum.

        Args:
            input: logits of the student, ``[N, C, *spatial]``, or those of each head.
            target: logits of the teacher, of the same shape; None where ``kd_weight`` is 0.
            label: the label as the loss on labels takes it; None where ``ce_weight`` is 0 and no other loss uses it.
            input_features: hidden layers of the student, as :class:`FeatureLoss` takes them.
            target_features: the teacher's, in the same order or under the same names.
            mask: which predictions the soft targets are compared at, ``[N, *spatial]`` or ``[N, 1, *spatial]``.
            layout: layout of all features, see :meth:`FeatureLoss.forward`.

        Returns:
            ``"loss"``, the weighted sum to differentiate, and each part by name: unweighted and detached.

        Raises:
            ValueError: when a part whose weight is not zero lacks its tensors, or they do not match.
        """
        parts = {}
        if self.weights["ce"]:
            if label is None:
                raise ValueError("the label is missing: pass label, or set ce_weight to 0")
            parts["ce"] = loss_on_labels(self.label_loss, input, label)
        if self.weights["kd"]:
            if target is None:
                raise ValueError("the logits of the teacher are missing: pass target, or set kd_weight to 0")
            parts["kd"] = self._soft_target_part(input, target, label, self._counted(target, label, mask))
        for name, feature_loss in self.active_feature_losses().items():
            if not len(input_features) or not len(target_features):
                raise ValueError(
                    f"the features for {name!r} are missing: pass input_features and target_features, "
                    "or set its weight to 0"
                )
            parts[name] = feature_loss(input_features, target_features, layout, label)
        if not parts:
            raise ValueError(f"at least one weight must be above zero, but a schedule has set {self.weights}")
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _soft_target_part(
        self, logits: Tensor | Sequence[Tensor], target: Tensor, label: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        if isinstance(logits, Tensor):
            return self._compared(logits, target, label, mask)
        get_weights = getattr(self.label_loss, "get_weights", None)
        weights = [1.0] * len(logits) if get_weights is None else get_weights(levels=len(logits))
        parts = []
        for head in logits:
            size = head.shape[2:]
            own_target = target if size == target.shape[2:] else _averaged(target, size)
            own_label, own_mask = (
                values if values is None else resize_nearest(values, size, centred=True) for values in (label, mask)
            )
            parts.append(self._compared(head, own_target, own_label, own_mask))
        return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()

    def _compared(self, logits: Tensor, target: Tensor, label: Tensor | None, mask: Tensor | None) -> Tensor:
        further = {} if mask is None else {"mask": mask}
        if getattr(self.soft_target_loss, "uses_label", False):
            if label is None:
                raise ValueError(
                    f"the label is missing, which {type(self.soft_target_loss).__name__} uses: pass label, or set "
                    "kd_weight to 0"
                )
            further["label"] = label
        return self.soft_target_loss(logits, target, **further)

    def _counted(self, logits: Tensor, label: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """The mask, without the predictions whose label the loss on labels ignores."""
        ignored = _ignore_index(self.label_loss)
        if label is None or ignored is None or (label.shape == logits.shape and logits.shape[1] > 1):
            return mask
        counted = plain(label) != ignored
        return counted if mask is None else counted * plain(mask).reshape(counted.shape)


def _ignore_index(label_loss: object) -> int | None:
    """The class index that a loss, or the one inside it, is set to ignore; None for that of items without a label."""
    parts = label_loss.modules() if isinstance(label_loss, nn.Module) else [label_loss]
    found = {getattr(part, "ignore_index", None) for part in parts} - {None, NO_LABEL}
    return found.pop() if len(found) == 1 else None


def _averaged(logits: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(full_precision(logits.detach()), list(size), mode="area")
