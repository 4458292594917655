"""Trainers of a student under the eyes of a teacher, on the extension points of MONAI's ``SupervisedTrainer``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import Inferer
from monai.utils.enums import CommonKeys
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_fetalkd.layouts import Layout
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss, FeatureLoss
from monai_fetalkd.outputs import OutputPath
from monai_fetalkd.targets import FixedViews, StoredTeacher, TeacherTargets
from monai_fetalkd.teachers import Teacher, as_teacher

from .task import AttentionTask, DistillationTask, StudentTask

__all__ = ["AttentionTransferTrainer", "DistillationTrainer", "TeacherStudentTrainer"]


class TeacherStudentTrainer(SupervisedTrainer, ABC):
    """What both stages share: a frozen teacher beside the student, and a loss on logits and hidden layers of both.

    ``SupervisedTrainer`` calls ``inferer(inputs, network)`` and then ``loss_function(pred, label)``. Here the first of
    them takes the whole step of the :class:`~monai_fetalkd.engines.task.StudentTask`: it runs the student, asks the
    teacher, and computes the loss. All the rest stays MONAI's: AMP (the teacher runs under it too), accumulation,
    compile, events, handlers.

    ``network`` is the student alone and ``engine.state.output["pred"]`` its logits, those of its main head under deep
    supervision. Every part of the loss is in ``engine.state.output`` under its own name, as a detached scalar. The
    teacher is in no state dict of the trainer, and its module is left as it was found. ``criterion`` is the loss; its
    parameters (adapters) are trained and kept in the checkpoint of the stage like those of the student.

    On several ranks give the student in ``DistributedDataParallel``, whose settings and communication hooks are taken
    over to a wrapper around student and loss (register hooks before); ``network`` is then the student inside. The
    teacher needs no wrapper.

    Args:
        device: where the networks are and the batches go.
        max_epochs: number of epochs.
        train_data_loader: loader of batches, as for ``SupervisedTrainer``.
        network: the student.
        optimizer: optimizer of the parameters of the student, and of those of the loss where it has any.
        loss_function: what the stage minimises.
        teacher: the teacher, a network that takes the same input as the student, or one of
            :mod:`monai_fetalkd.teachers` where it needs settings of its own or is an ensemble.
        student_layers: names of the student's layers to tap, such as ``["layer2", "layer3"]``.
        teacher_layers: the teacher's layers to compare them with, one for one; default: the same names.
        inferer: how a network is called on a batch; default ``SimpleInferer``.
        targets: where the teacher's targets are kept, when the dataset of the loader is a
            :class:`monai_fetalkd.targets.FixedViews`; None asks the teacher at every step.
        student_layout: layout of the student's features, see :func:`monai_fetalkd.layouts.channels_first`; one for all
            layers or by layer. None tells it by their shapes.
        student_output: which part of what the student returns are its logits, see
            :func:`monai_fetalkd.outputs.logits_of`.
        mask_key: entry of the batch that says which predictions the soft targets are compared at.
        kwargs: the other arguments of :class:`monai.engines.SupervisedTrainer`.

    Raises:
        ValueError: when a layer does not exist, the numbers of layers differ, student and teacher share layers, the
            optimizer holds the teacher's parameters or lacks those of the loss, or ``iteration_update`` is given, which
            would bypass the teacher. When the wrapper of the student casts it (``mixed_precision``) or delays the
            exchange of some gradients (``delay_all_reduce_named_params``). With ``targets``, when the dataset is no
            ``FixedViews`` or a loss needs whole features.
    """

    def __init__(
        self,
        *,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: nn.Module,
        teacher: nn.Module | Teacher,
        student_layers: Sequence[str] = (),
        teacher_layers: Sequence[str] | None = None,
        inferer: Inferer | None = None,
        targets: TeacherTargets | None = None,
        student_layout: Layout | Mapping[str, Layout] | None = None,
        student_output: OutputPath | None = None,
        mask_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        layers = _paired(student_layers, student_layers if teacher_layers is None else teacher_layers)
        if kwargs.get("iteration_update") is not None:
            raise ValueError("iteration_update would bypass the teacher: use an inferer, a loss or events instead.")
        wrapper = network if isinstance(network, DistributedDataParallel) else None
        student = network if wrapper is None else wrapper.module
        asked = as_teacher(teacher)
        asked.check_layers(list(layers.values()))
        _check_parameters(optimizer, student, loss_function, asked)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=student,
            optimizer=optimizer,
            loss_function=self._loss_of_step,
            inferer=inferer,
            **kwargs,
        )
        self.criterion = loss_function
        self.task = self._make_task(  # of self.network, which is the compiled module where `compile` was asked for
            student=self.network, loss=loss_function, layers=layers, layout=student_layout, output=student_output
        )
        self.teacher = asked if targets is None else self._stored(asked, targets, train_data_loader, layers)
        # after the handlers that load the teacher's weights
        self.add_event_handler(Events.STARTED, lambda: asked.start(train_data_loader, self.state.device))
        self._mask_key = mask_key
        self._step = self.task if wrapper is None else _wrapped_alike(self.task, wrapper)
        self._single_inferer: Inferer = self.inferer  # type: ignore[has-type]
        self.inferer = self._take_step

    @abstractmethod
    def _make_task(self, **kwargs: Any) -> StudentTask:
        """The step of this stage."""

    def _take_step(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor | None:
        state = self.state
        mask = None if self._mask_key is None else state.batch[self._mask_key].to(state.device, non_blocking=True)
        label = state.output[CommonKeys.LABEL]
        batch = state.batch if isinstance(state.batch, Mapping) else {}
        pred, parts = self._step(inputs, label, mask, self.teacher, batch, self._single_inferer, args, kwargs)
        if taken := (parts.keys() - {CommonKeys.LOSS}) & {*state.output, CommonKeys.PRED}:
            raise ValueError(f"parts of the loss must not be called {sorted(taken)}, as entries of the output are")
        state.output.update(parts)
        return pred

    def _loss_of_step(self, pred: Tensor | None, label: Tensor | None) -> Tensor:
        return self.state.output[CommonKeys.LOSS]

    def _stored(
        self, teacher: Teacher, targets: TeacherTargets, loader: Iterable, layers: Mapping[str, str]
    ) -> StoredTeacher:
        views = getattr(loader, "dataset", None)
        if not isinstance(views, FixedViews):
            raise ValueError("Stored targets need a loader whose dataset is a monai_fetalkd.targets.FixedViews.")
        stored = StoredTeacher(teacher, targets, views, layers, self.task.reduced())
        self.add_event_handler(Events.STARTED, stored.close)  # handlers load the teacher's weights when a run starts
        self.add_event_handler(Events.EPOCH_STARTED, stored.check_weights)
        self.add_event_handler(Events.EPOCH_STARTED, lambda: views.set_epoch(self.state.epoch - 1))
        return stored


def _paired(student_layers: Sequence[str], teacher_layers: Sequence[str]) -> dict[str, str]:
    if len(student_layers) != len(teacher_layers):
        raise ValueError(
            f"The layers pair up one for one, but there are {len(student_layers)} of the student "
            f"({list(student_layers)}) and {len(teacher_layers)} of the teacher ({list(teacher_layers)})."
        )
    if len(set(student_layers)) != len(student_layers):
        raise ValueError(f"A layer is named twice in student_layers: {list(student_layers)}.")
    return dict(zip(student_layers, teacher_layers, strict=True))


def _check_parameters(optimizer: torch.optim.Optimizer, student: nn.Module, loss: nn.Module, teacher: Teacher) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    own = {id(module) for module in student.modules()} | {id(parameter) for parameter in student.parameters()}
    for network in teacher.networks():
        if any(id(part) in own for part in (*network.modules(), *network.parameters())):
            raise ValueError(
                "Student and teacher share layers, which would be in training and in eval mode at once: give the "
                "teacher as a copy (copy.deepcopy)."
            )
        if any(id(parameter) in held for parameter in network.parameters()):
            raise ValueError("The optimizer holds parameters of the teacher: give it those of the student alone.")
    untrained = [name for name, value in loss.named_parameters() if value.requires_grad and id(value) not in held]
    if untrained:
        raise ValueError(
            f"The optimizer lacks parameters of the loss ({', '.join(untrained)}), which would never be trained: give "
            "it [*student.parameters(), *loss.parameters()]."
        )


def _wrapped_alike(task: StudentTask, wrapper: DistributedDataParallel) -> DistributedDataParallel:
    """Student and loss in one wrapper, with the settings and hooks of the one that was given around the student.

    Hooks that only private calls of torch register (built-in C++ hooks, those for buffers) cannot be read.
    """
    if wrapper.mixed_precision is not None:
        raise ValueError(
            "DistributedDataParallel(mixed_precision=...) has cast the student for itself, which a wrapper around "
            "student and loss cannot take over: leave it out and give the trainer amp=True."
        )
    if wrapper._delay_all_reduce_params:
        raise ValueError(
            "DistributedDataParallel(delay_all_reduce_named_params=...) names parameters of the student alone, which a "
            "wrapper around student and loss cannot take over: leave it out."
        )
    # layers after the last one tapped have no gradient in stage 1, nor has an adapter whose weight is zero; a static
    # graph finds them by itself
    unused = not wrapper.static_graph and (isinstance(task, AttentionTask) or any(True for _ in task.loss.parameters()))
    settings: dict[str, Any] = {
        "device_ids": wrapper.device_ids,
        "process_group": wrapper.process_group,
        "bucket_cap_mb": wrapper.bucket_bytes_cap // 2**20,
        "find_unused_parameters": wrapper.find_unused_parameters or unused,
        "gradient_as_bucket_view": wrapper.gradient_as_bucket_view,
        "static_graph": wrapper.static_graph,
    }
    if not wrapper.broadcast_buffers:  # not by its default, as newer versions of torch warn of the argument
        settings["broadcast_buffers"] = False
    for name in ("batched_grad_copy", "skip_all_reduce_unused_params"):  # older versions of torch lack the first
        if getattr(wrapper, name, False):
            settings[name] = True
    alike = DistributedDataParallel(task, **settings)
    for hook, state in wrapper._comm_hooks:
        alike.register_comm_hook(state, hook)
    return alike


class AttentionTransferTrainer(TeacherStudentTrainer):
    """Stage 1: the student learns to attend where the teacher attends; labels and logits play no part.

    Args:
        loss_function: a loss of features; default :class:`monai_fetalkd.losses.AttentionTransferLoss`. The value of
            each layer, before its weight, is in ``engine.state.output`` as ``"at_<student layer>"``.
        logits: False ends both forward passes after the last tapped layer where the inferer makes one pass, and
            ``engine.state.output["pred"]`` is None. The teacher's goes on to its logits where ``targets`` are stored,
            as stage 2 reads them.
        kwargs: the arguments of :class:`TeacherStudentTrainer`; ``student_layers`` may be any subset of layers.

    Raises:
        ValueError: when no layer is named.

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
        self._logits = logits
        super().__init__(student_layers=student_layers, loss_function=loss, **kwargs)

    def _make_task(self, **kwargs: Any) -> StudentTask:
        return AttentionTask(logits=self._logits, **kwargs)


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

    def _make_task(self, **kwargs: Any) -> StudentTask:
        return DistillationTask(**kwargs)
