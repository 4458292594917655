"""What a stage trains: the student and the parameters of its loss, as one module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from monai_fetalkd.layouts import Layout, check_layout, named_layers, spatial_feature
from monai_fetalkd.losses import DistillationLoss, FeatureLoss
from monai_fetalkd.outputs import OutputPath, heads_of, logits_of, part_of
from monai_fetalkd.taps import FeatureTaps
from monai_fetalkd.teachers import Query, Targets, Teacher, eval_only, makes_one_pass
from monai_fetalkd.utils.tensor import plain

__all__ = ["AttentionTask", "DistillationTask", "StudentTask"]


class StudentTask(nn.Module, ABC):
    """One step of a stage: from a batch to the student's logits and the parts of the loss.

    ``DistributedDataParallel`` wraps this module, so that the gradients of an adapter in the loss are exchanged as
    those of the student are; a checkpoint of the stage takes the state of its two children.

    Args:
        student: the student, compiled or not.
        loss: what the stage minimises.
        layers: the teacher's layer to compare each layer of the student with.
        layout: layout of the student's features, see :func:`monai_fetalkd.layouts.channels_first`; one for all layers
            or by layer. None tells it by their shapes.
        output: which part of what the student returns are its logits, see :func:`monai_fetalkd.outputs.logits_of`.
        logits: whether the student's logits are wanted; without, a forward pass may end after the last layer.

    Raises:
        ValueError: when a layer does not exist, or a loss names a layer that is not among them.
    """

    def __init__(
        self,
        student: nn.Module,
        loss: nn.Module,
        layers: Mapping[str, str],
        layout: Layout | Mapping[str, Layout] | None = None,
        output: OutputPath | None = None,
        logits: bool = True,
    ) -> None:
        super().__init__()
        check_layout(layout)
        self.student = student
        self.loss = loss
        self.layers = dict(layers)
        self.layout = layout
        self.output = output
        self.logits = logits
        self._taps: dict[tuple[tuple[str, ...], bool], FeatureTaps] = {}
        for feature_loss in self.feature_losses():
            if unknown := [layer for layer in feature_loss.layers or () if layer not in self.layers]:
                raise ValueError(f"a loss names the layers {unknown}, but student_layers are {list(self.layers)}")
        if self.layers:
            FeatureTaps(student, list(dict.fromkeys((*self.layers, *named_layers(layout)))))

    @abstractmethod
    def feature_losses(self) -> Sequence[FeatureLoss]:
        """All losses on hidden layers."""

    @abstractmethod
    def active_feature_losses(self) -> Sequence[FeatureLoss]:
        """Those that take part now."""

    @abstractmethod
    def wants_teacher_logits(self) -> bool:
        """Whether the loss looks at the teacher's logits now."""

    @abstractmethod
    def parts(
        self,
        logits: Tensor | list[Tensor] | None,
        label: Tensor | None,
        mask: Tensor | None,
        features: Mapping[str, Tensor],
        targets: Targets,
    ) -> dict[str, Tensor]:
        """The loss to minimise under ``"loss"``, and its parts, detached, under their names."""

    def forward(
        self,
        inputs: Tensor,
        label: Tensor | None,
        mask: Tensor | None,
        teacher: Teacher,
        batch: Mapping[str, Any],
        inferer: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Take one step, up to the gradients.

        Args:
            inputs: input of the student.
            label: the label, or None.
            mask: which predictions the soft targets are compared at, or None.
            teacher: whom to ask for the targets.
            batch: the whole batch.
            inferer: how a network is called.
            args: further arguments of the networks.
            kwargs: further keyword arguments of the networks.

        Returns:
            The student's logits without their graph (of the main head; None where they are not wanted), and the loss
            and its parts by name.
        """
        layers = self._compared(self.active_feature_losses())
        taps = self._taps_of(layers, stop=not self.logits and makes_one_pass(inferer))
        with taps or nullcontext():
            returned = inferer(inputs, self.student, *args, **kwargs)
        features = {} if taps is None else self._features(taps.pop(), inputs)
        wanted = self.wants_teacher_logits()
        pairs = {layer: self.layers[layer] for layer in layers}
        observe = partial(self._observe, inputs, inferer, args, kwargs)
        query = Query(inputs, batch, inferer, args, kwargs, wanted, pairs, features, observe, self._reduce)
        targets = teacher.targets(query) if wanted or pairs else Targets(None, {})
        logits = self._read(returned, inputs) if self.logits else None
        parts = self.parts(logits, label, mask, features, targets)
        main = logits[0] if isinstance(logits, list) else logits
        return None if main is None else main.detach(), parts

    @torch.no_grad()
    def _observe(
        self, inputs: Tensor, inferer: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The student's features of all layers that a loss compares, from a pass that trains nothing."""
        taps = self._taps_of(self._compared(self.feature_losses()), stop=False)
        if taps is None:
            return {}
        with eval_only(self.student), taps:
            inferer(inputs, self.student, *args, **kwargs)
        return self._features(taps.pop(), inputs)

    def reduced(self) -> dict[str, str | None]:
        """What the losses keep of the teacher's feature for each layer that they compare, in words; None keeps all."""
        return {
            layer: None if (loss := self._reducer(layer)) is None else loss.reduced
            for layer in self._compared(self.feature_losses())
        }

    def _compared(self, losses: Sequence[FeatureLoss]) -> list[str]:
        return [layer for layer in self.layers if any(loss.layers is None or layer in loss.layers for loss in losses)]

    def _taps_of(self, layers: list[str], stop: bool) -> FeatureTaps | None:
        if not layers:
            return None
        key = (tuple(layers), stop)
        if key not in self._taps:  # kept: a compiled network is compiled anew for each
            self._taps[key] = FeatureTaps(self.student, layers, stop)
        return self._taps[key]

    def _features(self, tapped: Mapping[str, Tensor], inputs: Tensor) -> dict[str, Tensor]:
        features = {}
        for name, feature in tapped.items():
            if torch.is_grad_enabled() and not feature.requires_grad:
                raise ValueError(
                    f"the feature of layer {name!r} of the student carries no gradient, so a loss on it teaches "
                    "nothing: its layers are frozen, or inside torch.utils.checkpoint with use_reentrant=True (say "
                    "False)"
                )
            layout = self.layout.get(name) if isinstance(self.layout, Mapping) else self.layout
            if layout is None:  # the loss may say it
                reducer = self._reducer(name)
                layout = None if reducer is None else reducer.layout
            features[name] = spatial_feature(f"{name} of the student", feature, layout, inputs.shape[2:])
        return features

    def _reducer(self, layer: str) -> FeatureLoss | None:
        """The loss that says what is needed of a layer; None where losses need different things, so all of it."""
        kinds = {loss.reduced: loss for loss in self.feature_losses() if loss.layers is None or layer in loss.layers}
        return next(iter(kinds.values())) if len(kinds) == 1 else None

    def _reduce(self, layer: str, teacher: Tensor, student: Tensor) -> Tensor:
        reducer = self._reducer(layer)
        return teacher if reducer is None else reducer.reduce(teacher, student, "channels_first")

    def _read(self, returned: Any, inputs: Tensor) -> Tensor | list[Tensor]:
        return logits_of(returned, self.output, "student")


class AttentionTask(StudentTask):
    """Stage 1: a loss on hidden layers alone, each reported as ``at_<layer>``."""

    loss: FeatureLoss

    def feature_losses(self) -> Sequence[FeatureLoss]:
        """The one loss."""
        return [self.loss]

    def active_feature_losses(self) -> Sequence[FeatureLoss]:
        """The one loss."""
        return [self.loss]

    def wants_teacher_logits(self) -> bool:
        """Never."""
        return False

    def parts(
        self,
        logits: Tensor | list[Tensor] | None,
        label: Tensor | None,
        mask: Tensor | None,
        features: Mapping[str, Tensor],
        targets: Targets,
    ) -> dict[str, Tensor]:
        """The value of each layer before its weight, and their sum."""
        values = self.loss.per_layer(features, targets.features, "channels_first", label)
        names = [f"at_{layer}" for layer in self.loss.layers or features]
        parts = {name: value.detach() for name, value in zip(names, values, strict=True)}
        return {"loss": self.loss.total(values), **parts}


class DistillationTask(StudentTask):
    """Stage 2: labels, soft targets and hidden layers, as :class:`monai_fetalkd.losses.DistillationLoss` sums them."""

    loss: DistillationLoss

    def feature_losses(self) -> Sequence[FeatureLoss]:
        """All feature losses."""
        return self.loss.all_feature_losses()

    def active_feature_losses(self) -> Sequence[FeatureLoss]:
        """Those whose weight is not zero."""
        return list(self.loss.active_feature_losses().values())

    def wants_teacher_logits(self) -> bool:
        """Whether soft targets have a weight."""
        return bool(self.loss.weights["kd"])

    def parts(
        self,
        logits: Tensor | list[Tensor] | None,
        label: Tensor | None,
        mask: Tensor | None,
        features: Mapping[str, Tensor],
        targets: Targets,
    ) -> dict[str, Tensor]:
        """The parts of the loss."""
        further: dict[str, Any] = {"layout": "channels_first"} if features else {}
        if targets.mask is not None:
            mask = targets.mask if mask is None else targets.mask * plain(mask).reshape(targets.mask.shape)
        if mask is not None:
            further["mask"] = mask
        return self.loss(logits, targets.logits, label, features, targets.features, **further)

    def _read(self, returned: Any, inputs: Tensor) -> Tensor | list[Tensor]:
        deep = hasattr(self.loss.label_loss, "get_weights")  # MONAI's DeepSupervisionLoss
        heads = heads_of(part_of(returned, self.output, "student"), inputs.ndim) if deep else None
        return super()._read(returned, inputs) if heads is None else heads
