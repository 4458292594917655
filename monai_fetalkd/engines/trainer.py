"""Trainers of a student under the eyes of a teacher, on the extension points of MONAI's ``SupervisedTrainer``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss, FeatureLoss
from monai_fetalkd.taps import FeatureTaps
from monai_fetalkd.targets import FixedViews, StoredTargets, Targets, TeacherTargets

__all__ = ["AttentionTransferTrainer", "DistillationTrainer", "TeacherStudentTrainer"]


class TeacherStudentTrainer(SupervisedTrainer, ABC):
    """What both stages share: a frozen teacher beside the student, and taps on the hidden layers of both.

    ``SupervisedTrainer`` calls ``inferer(inputs, network)`` and then ``loss_function(pred, label)``. This class steps
    between: its inferer runs the teacher (eval mode, no gradient) and the student with the user's inferer, and its loss
    hands logits and tapped features of both to the user's loss. All the rest stays MONAI's: AMP (the teacher runs under
    it too), accumulation, compile, events, handlers.

    The teacher's features reach the loss condensed to what it needs of them, see ``FeatureLoss.condense``. With
    ``targets`` they and the logits are stored when a view of a frame is met for the first time, and read from then on.

    ``network`` is the student alone and ``engine.state.output["pred"]`` its logits. Every part of the loss is in
    ``engine.state.output`` under its own name, as a detached scalar. The teacher is in no state dict of the trainer.
    On several ranks ``network`` is the student in ``DistributedDataParallel``; the teacher needs no wrapper.

    Args:
        device: where the networks are and the batches go.
        max_epochs: number of epochs.
        train_data_loader: loader of batches, as for ``SupervisedTrainer``.
        network: the student.
        optimizer: optimizer of the student's parameters.
        loss_function: what the stage minimises.
        teacher: the teacher; it is frozen here. It may be any network that takes the same input.
        student_layers: names of the student's layers to tap, such as ``["layer2", "layer3"]``.
        teacher_layers: the teacher's layers to compare them with, one for one; default: the same names.
        inferer: how a network is called on a batch; default ``SimpleInferer``.
        targets: where the teacher's targets are kept, when the dataset of the loader is a
            :class:`monai_fetalkd.targets.FixedViews`; None asks the teacher at every step.
        kwargs: the other arguments of :class:`monai.engines.SupervisedTrainer`.

    Raises:
        ValueError: when a layer does not exist, the numbers of layers differ, the optimizer holds the teacher's
            parameters, or ``iteration_update`` is given, which would bypass the teacher. With ``targets``, when the
            dataset is no ``FixedViews`` or a loss needs whole features.
    """

    _stop = False  # whether the forward passes may end after the last tapped layer

    def __init__(
        self,
        *,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: nn.Module,
        teacher: nn.Module,
        student_layers: Sequence[str] = (),
        teacher_layers: Sequence[str] | None = None,
        inferer: Inferer | None = None,
        targets: TeacherTargets | None = None,
        **kwargs: Any,
    ) -> None:
        teacher_layers = student_layers if teacher_layers is None else teacher_layers
        if len(student_layers) != len(teacher_layers):
            raise ValueError(
                f"The layers pair up one for one, but there are {len(student_layers)} of the student "
                f"({list(student_layers)}) and {len(teacher_layers)} of the teacher ({list(teacher_layers)})."
            )
        frozen = {id(parameter) for parameter in teacher.parameters()}
        if any(id(parameter) in frozen for group in optimizer.param_groups for parameter in group["params"]):
            raise ValueError("The optimizer holds parameters of the teacher: give it those of the student alone.")
        if kwargs.get("iteration_update") is not None:
            raise ValueError("iteration_update would bypass the teacher: use an inferer, a loss or events instead.")
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=self._compute_loss,
            inferer=inferer,
            **kwargs,
        )
        self.criterion: Any = loss_function
        self.teacher = teacher.requires_grad_(False)
        self._single_inferer: Inferer = self.inferer  # type: ignore[has-type]
        self.inferer = self._infer_both
        # built on self.network, which is the compiled module where `compile` was asked for
        self._student_taps = FeatureTaps(self.network, student_layers, self._stop) if student_layers else None
        stop = self._stop and targets is None
        self._teacher_taps = FeatureTaps(teacher, teacher_layers, stop) if teacher_layers else None
        self._teacher_layers = list(teacher_layers)
        self._teacher_logits: Tensor | None = None
        self._targets = targets
        self._stored: StoredTargets | None = None
        self._read: Targets | None = None
        # losses that need different things of a feature get all of it
        by_condensation = {loss.condensation: loss for loss in self._feature_losses()}
        self._condensing = by_condensation.popitem()[1] if len(by_condensation) == 1 else None
        if targets is not None:
            self._check_targets(train_data_loader)
            self.add_event_handler(Events.STARTED, self._close_targets)
            self.add_event_handler(Events.EPOCH_STARTED, self._show_views)

    def _infer_both(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor | None:
        stored = self._stored
        self._read = None if stored is None else stored.read(self.state.batch["view"], self.state.device)
        if self._read is None:
            self.teacher.eval()  # at every step: whoever called .train() on it, its batch statistics must not move
            with torch.no_grad(), _recording(self._teacher_taps):
                self._teacher_logits = self._single_inferer(inputs, self.teacher, *args, **kwargs)
        with _recording(self._student_taps):
            logits = self._single_inferer(inputs, network, *args, **kwargs)
        return None if self._stop else logits  # what a pass that was ended returns is no logits

    def _compute_loss(self, logits: Tensor, label: Tensor | None) -> Tensor:
        # taken, not kept: nothing of a step stays alive after it
        features = _taken(self._student_taps)
        targets, self._read = self._read, None
        if targets is None:
            targets = self._computed_targets(features)
        parts = self._loss_parts(logits, targets.logits, label, features, targets.features)
        loss = parts.pop("loss")
        self.state.output.update(parts)
        return loss

    def _computed_targets(self, features: list[Tensor]) -> Targets:
        teacher_logits, self._teacher_logits = cast(Tensor, self._teacher_logits), None
        teacher_features = _taken(self._teacher_taps)
        if self._condensing is not None:
            pairs = zip(teacher_features, features, strict=True)
            teacher_features = [self._condensing.condense(teacher, student) for teacher, student in pairs]
        targets = Targets(teacher_logits, teacher_features)
        if self._targets is None:
            return targets
        if self._stored is None:  # not before: handlers load the weights of the teacher when the run starts
            self._stored = self._targets.open(
                self.data_loader.dataset,
                self.teacher,
                self._single_inferer,
                self._teacher_layers,
                None if self._condensing is None else self._condensing.condensation,
                targets,
            )
        return self._stored.settle(self.state.batch["view"], targets)

    def _check_targets(self, loader: Iterable) -> None:
        if not isinstance(getattr(loader, "dataset", None), FixedViews):
            raise ValueError("Stored targets need a loader whose dataset is a monai_fetalkd.targets.FixedViews.")
        if self._teacher_layers and (self._condensing is None or self._condensing.condensation is None):
            raise ValueError(
                "Targets are stored for losses on attention maps of one kind, not for losses that need whole features: "
                "use AttentionTransferLoss, or leave targets out."
            )

    def _close_targets(self) -> None:
        self._stored = None  # the next run may have another teacher

    def _show_views(self) -> None:
        self.data_loader.dataset.set_epoch(self.state.epoch - 1)

    @abstractmethod
    def _feature_losses(self) -> Iterable[FeatureLoss]:
        """The losses on hidden layers."""

    @abstractmethod
    def _loss_parts(
        self,
        logits: Tensor,
        teacher_logits: Tensor | None,
        label: Tensor | None,
        features: list[Tensor],
        teacher_features: list[Tensor],
    ) -> dict[str, Tensor]:
        """The loss to minimise under ``"loss"``, and its parts, detached, under their names."""


def _recording(taps: FeatureTaps | None) -> AbstractContextManager:
    return nullcontext() if taps is None else taps


def _taken(taps: FeatureTaps | None) -> list[Tensor]:
    return [] if taps is None else list(taps.pop().values())


class AttentionTransferTrainer(TeacherStudentTrainer):
    """Stage 1: the student learns to attend where the teacher attends; labels and logits play no part.

    Args:
        loss_function: a loss of features; default :class:`monai_fetalkd.losses.AttentionTransferLoss`. The value of
            each layer, before its weight, is in ``engine.state.output`` as ``"at_<student layer>"``.
        logits: False ends both forward passes after the last tapped layer, and ``engine.state.output["pred"]`` is
            None. The teacher's goes on to its logits where ``targets`` are stored, as stage 2 reads them.
        kwargs: the arguments of :class:`TeacherStudentTrainer`; ``student_layers`` may be any subset of layers.

    Raises:
        ValueError: when no layer is named, and when ``network`` is a ``DistributedDataParallel`` that would wait for
            gradients which this stage does not have: it needs ``find_unused_parameters=True`` and ``logits=False``.

    Example:
        >>> from monai_fetalkd.networks import student_resnet
        >>> student, teacher = student_resnet(4, num_classes=3), student_resnet(8, num_classes=3)
        >>> trainer = AttentionTransferTrainer(
        ...     device="cpu", max_epochs=1, train_data_loader=[{"image": torch.rand(2, 1, 32, 32)}],
        ...     network=student, teacher=teacher, student_layers=["layer1", "layer3"],
        ...     optimizer=torch.optim.SGD(student.parameters(), lr=0.1), decollate=False)
        >>> trainer.run()
        >>> print(*sorted(trainer.state.output))
        at_layer1 at_layer3 image label loss pred
    """

    def __init__(
        self,
        *,
        student_layers: Sequence[str],
        loss_function: FeatureLoss | None = None,
        logits: bool = True,
        **kwargs: Any,
    ) -> None:
        if not student_layers:
            raise ValueError("Attention is transferred between hidden layers: name at least one in student_layers.")
        loss = AttentionTransferLoss() if loss_function is None else loss_function
        self._stop = not logits
        super().__init__(student_layers=student_layers, loss_function=loss, **kwargs)
        self._names = [f"at_{layer}" for layer in student_layers]
        wrapper = getattr(self.network, "_orig_mod", self.network)
        if isinstance(wrapper, DistributedDataParallel) and (logits or not wrapper.find_unused_parameters):
            raise ValueError(
                "Layers after the last tapped one have no gradient in stage 1, and DistributedDataParallel would wait "
                "for it: wrap the student with find_unused_parameters=True, and give the trainer logits=False."
            )

    def _feature_losses(self) -> Iterable[FeatureLoss]:
        return [self.criterion]

    def _loss_parts(
        self,
        logits: Tensor,
        teacher_logits: Tensor | None,
        label: Tensor | None,
        features: list[Tensor],
        teacher_features: list[Tensor],
    ) -> dict[str, Tensor]:
        values = self.criterion.per_layer(features, teacher_features)
        parts = {name: value.detach() for name, value in zip(self._names, values, strict=True)}
        return {"loss": self.criterion.total(values), **parts}


class DistillationTrainer(TeacherStudentTrainer):
    """Stage 2: the student learns from labels, softened outputs of the teacher and, where asked for, its features.

    Args:
        loss_function: default :class:`monai_fetalkd.losses.DistillationLoss` without features. Its parts (``"ce"``,
            ``"kd"`` and one for each feature loss) are in ``engine.state.output``.
        kwargs: the arguments of :class:`TeacherStudentTrainer`; ``student_layers`` are needed for feature losses only.

    Example:
        >>> from monai_fetalkd.networks import student_resnet
        >>> student, teacher = student_resnet(4, num_classes=3), student_resnet(8, num_classes=3)
        >>> batch = {"image": torch.rand(2, 1, 32, 32), "label": torch.tensor([0, 2])}
        >>> trainer = DistillationTrainer(
        ...     device="cpu", max_epochs=1, train_data_loader=[batch], network=student, teacher=teacher,
        ...     optimizer=torch.optim.SGD(student.parameters(), lr=0.1), decollate=False)
        >>> trainer.run()
        >>> print(*sorted(trainer.state.output))
        ce image kd label loss pred
    """

    def __init__(self, *, loss_function: DistillationLoss | None = None, **kwargs: Any) -> None:
        super().__init__(loss_function=DistillationLoss() if loss_function is None else loss_function, **kwargs)

    def _feature_losses(self) -> Iterable[FeatureLoss]:
        return self.criterion.feature_losses.values()

    def _loss_parts(
        self,
        logits: Tensor,
        teacher_logits: Tensor | None,
        label: Tensor | None,
        features: list[Tensor],
        teacher_features: list[Tensor],
    ) -> dict[str, Tensor]:
        return self.criterion(logits, teacher_logits, label, features, teacher_features)
