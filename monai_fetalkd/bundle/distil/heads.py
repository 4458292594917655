"""What a network's head gives, told by the loss on labels and by its output, and so how it is distilled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from monai.losses import DiceCELoss, DiceFocalLoss, FocalLoss
from torch import Tensor, nn

from monai_fetalkd.losses import DistillationLoss, LabelLoss
from monai_fetalkd.losses.label import is_sigmoid_head

__all__ = ["Head", "head_of", "label_loss_of"]

Head = Literal["softmax", "sigmoid", "values"]

_VALUES = (nn.L1Loss, nn.MSELoss, nn.SmoothL1Loss, nn.HuberLoss)
_EXCLUSIVE = (nn.CrossEntropyLoss, DiceCELoss, DiceFocalLoss, FocalLoss, LabelLoss)


def label_loss_of(loss: Any) -> Any:
    """The loss on labels inside a :class:`~monai_fetalkd.losses.DistillationLoss`; any other as it is."""
    return loss.label_loss if isinstance(loss, DistillationLoss) else loss


def head_of(loss: Any, output: Any) -> Head:
    """Tell what a network is trained to give.

    Args:
        loss: its loss on labels.
        output: what it returns in eval mode.

    Returns:
        ``"softmax"`` for logits of exclusive classes, ``"sigmoid"`` for those of independent ones, ``"values"`` for
        numbers without classes, as a regression gives them.

    Raises:
        ValueError: when it returns several outputs, or the loss does not tell.

    Example:
        >>> import torch
        >>> from monai.losses import DiceLoss
        >>> head_of(DiceLoss(sigmoid=True), torch.zeros(1, 3, 8, 8))
        'sigmoid'
    """
    if isinstance(output, Mapping):
        raise ValueError(
            f"The network returns several outputs ({', '.join(map(str, output))}), each with its own loss; one that "
            "returns logits alone can be distilled."
        )
    deep = hasattr(loss, "get_weights")  # MONAI's DeepSupervisionLoss
    if not isinstance(output, Tensor) and not deep:
        raise ValueError(f"The network returns a {type(output).__name__}, not one tensor of logits.")
    inner = loss.loss if deep else loss
    if isinstance(inner, _VALUES):
        return "values"
    if is_sigmoid_head(inner):
        return "sigmoid"
    said = any(getattr(part, name, None) is True for part in _parts(inner) for name in ("softmax", "use_softmax"))
    if not said and not isinstance(inner, _EXCLUSIVE):
        raise ValueError(
            f"The loss {type(inner).__name__} does not say what the network gives: one with softmax=True or "
            "sigmoid=True, a cross entropy or a regression can be distilled."
        )
    main = output if isinstance(output, Tensor) else next(iter(output))
    if main.shape[1] == 1:
        raise ValueError(
            f"The loss {type(inner).__name__} is one of exclusive classes, but the network gives one channel: a "
            "teacher's softmax over it says nothing."
        )
    return "softmax"


def _parts(loss: Any) -> list[Any]:
    return list(loss.modules()) if isinstance(loss, nn.Module) else [loss]
