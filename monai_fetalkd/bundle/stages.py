"""One factory for the stages of a config: optimizer, schedule, validation, checkpoint and logs around a trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import ignite.distributed as idist
import torch
from monai.engines import Evaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.handlers import TrainingStage, WeightsLoader
from monai_fetalkd.losses import FeatureLoss
from monai_fetalkd.losses._labels import loss_on_labels
from monai_fetalkd.teachers import Teacher, as_teacher
from monai_fetalkd.utils.checkpoints import save_weights

__all__ = [
    "StageSettings",
    "keep_initial_weights",
    "one_cycle",
    "training_stage",
]

Path = str | PathLike[str]


def one_cycle(optimizer: torch.optim.Optimizer, steps: int, lr: float) -> OneCycleLR:
    """The learning rate rises to ``lr`` in the first third and falls to nearly zero at the end (Smith & Topin 2017).

    Args:
        optimizer: the optimizer.
        steps: number of steps of the stage.
        lr: the largest rate.

    Returns:
        The schedule, to be stepped after each step of the optimizer. Groups of parameters with rates of their own, such
        as those of :func:`monai_fetalkd.networks.layer_decay`, keep their ratios.
    """
    rates = [group["lr"] * (lr / optimizer.defaults["lr"]) for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=rates, total_steps=max(steps, 1))


@dataclass(frozen=True)
class StageSettings:
    """What the stages of a job have in common.

    Args:
        device: where the networks are and the batches go.
        log_dir: folder of the logs.
        weight_decay: weight decay of the default optimizer.
        optimizer: called with parameters and ``lr``; None is AdamW with that weight decay.
        lr_scheduler: called with the optimizer, ``steps`` and ``lr``; None keeps the rate.
        seed: seed of the run.
        resume: continue stages that were interrupted.
        inferer: how a network is called in training; None is MONAI's ``SimpleInferer``.
        evaluator: called with ``network``, makes the evaluator that validates a stage which is given none; None
            validates none.
        val_interval: epochs between two validations.
        ema_decay: see :class:`~monai_fetalkd.handlers.TrainingStage`.
        describe: called with the file of a stage's weights after they have been written, to tell what they were trained
            on (:func:`monai_fetalkd.ultrasound.descriptions.describe_weights`).
        compile: whether networks are compiled.
        data_parallel: whether networks are wrapped in ``DistributedDataParallel``.
    """

    device: str | torch.device
    log_dir: Path
    weight_decay: float = 0.01
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    lr_scheduler: Callable[..., Any] | None = one_cycle
    seed: int = 0
    resume: bool = False
    inferer: Any = None
    evaluator: Callable[..., Evaluator] | None = None
    val_interval: int = 1
    ema_decay: float | None = None
    describe: Callable[..., None] | None = None
    compile: bool = False
    data_parallel: bool = False


def training_stage(
    settings: StageSettings,
    name: str,
    network: nn.Module,
    train_data_loader: Any,
    loss_function: nn.Module,
    path: Path,
    max_epochs: int,
    lr: float,
    *,
    teacher: nn.Module | Teacher | None = None,
    teacher_path: Path | None = None,
    evaluator: Evaluator | None = None,
    train_handlers: Sequence[Any] | None = None,
    start_from: Path | None = None,
    schedule_epochs: int | None = None,
    lr_scheduler: Callable[..., Any] | None = None,
    **further: Any,
) -> SupervisedTrainer | AttentionTransferTrainer | DistillationTrainer:
    """A stage: labels alone, such as the training of a teacher, or under a teacher.

    Args:
        settings: what all stages have in common.
        name: name of the stage in logs and messages.
        network: the network to train.
        train_data_loader: loader of the training batches.
        loss_function: without a teacher the loss on labels, called as
            :class:`~monai_fetalkd.losses.DistillationLoss` calls it: with logits of at least float32, for the items
            that have a label, and with maps as labels in their type. With a teacher, a
            :class:`~monai_fetalkd.losses.FeatureLoss` makes an
            :class:`~monai_fetalkd.engines.AttentionTransferTrainer`, which is not validated by default; a
            :class:`~monai_fetalkd.losses.DistillationLoss` a :class:`~monai_fetalkd.engines.DistillationTrainer`.
        path: file for the weights, see :class:`~monai_fetalkd.handlers.StageCheckpoint`.
        max_epochs: number of epochs.
        lr: largest learning rate.
        teacher: the teacher; None learns from labels alone.
        teacher_path: checkpoint of its first network, loaded when the stage starts; None takes it as it is.
        evaluator: validates the stage; None is that of the settings.
        train_handlers: in place of the handler that validates.
        start_from: weights to begin with.
        schedule_epochs: epochs that the schedule spans, where they are not ``max_epochs``.
        lr_scheduler: in place of that of the settings.
        further: all others go to the trainer.

    Returns:
        The trainer, with all of it attached.

    Example:
        >>> import tempfile
        >>> settings = StageSettings("cpu", tempfile.mkdtemp())
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        >>> batch = {"image": torch.rand(2, 1, 4, 4), "label": torch.tensor([0, 1])}
        >>> path = f"{settings.log_dir}/teacher.pt"
        >>> trainer = training_stage(settings, "teacher", network, [batch], nn.CrossEntropyLoss(), path, 2, lr=0.1)
        >>> trainer.run()
        >>> trainer.state.epoch
        2
    """
    kind: type[Any] = SupervisedTrainer
    if teacher is None:
        loss_function = _LossOnLabels(loss_function)
    else:
        features = isinstance(loss_function, FeatureLoss)
        kind = AttentionTransferTrainer if features else DistillationTrainer
        further = {"teacher": teacher, **({"logits": False} if features else {}), **further}
    if evaluator is None and settings.evaluator is not None and kind is not AttentionTransferTrainer:
        evaluator = settings.evaluator(network=network)
    loss_function.to(settings.device)  # its parameters, such as those of a projector
    parameters = [*network.parameters(), *loss_function.parameters()]
    if settings.optimizer is None:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=settings.weight_decay)
    else:
        optimizer = settings.optimizer(parameters, lr=lr)
    make_schedule = settings.lr_scheduler if lr_scheduler is None else lr_scheduler
    schedule = None
    if make_schedule is not None:
        steps = (max_epochs if schedule_epochs is None else schedule_epochs) * len(train_data_loader)
        schedule = make_schedule(optimizer, steps=steps, lr=lr)
    if train_handlers is None:
        train_handlers = [] if evaluator is None else [ValidationHandler(settings.val_interval, evaluator)]
    loaded = []
    if teacher is not None and teacher_path is not None:
        loaded.append(WeightsLoader(as_teacher(teacher).networks()[0], teacher_path))
    stage = TrainingStage(
        name,
        network,
        optimizer,
        schedule,
        train_data_loader.dataset if hasattr(train_data_loader, "dataset") else train_data_loader,
        path,
        settings.log_dir,
        settings.seed,
        evaluator,
        start_from,
        settings.resume,
        ema_decay=settings.ema_decay,
        describe=settings.describe,
    )
    # decollating reads labels from the device one by one; MONAI's handlers of outputs expect it, as for tracking
    decollate = any(not isinstance(handler, ValidationHandler) for handler in train_handlers)
    arguments = {"non_blocking": True, "decollate": decollate, "inferer": settings.inferer, "compile": settings.compile}
    return kind(
        device=settings.device,
        max_epochs=max_epochs,
        train_data_loader=train_data_loader,
        network=_data_parallel(network, settings) if settings.data_parallel else network,
        optimizer=optimizer,
        loss_function=loss_function,
        train_handlers=[*train_handlers, *loaded, stage],
        **{**arguments, **further},
    )


@idist.one_rank_only(with_barrier=True)
def keep_initial_weights(network: nn.Module, path: Path) -> None:
    """Write what a student begins with, for the stages that begin with the same and for the report.

    Args:
        network: the student, not yet trained.
        path: the file.
    """
    save_weights(network, path)


class _LossOnLabels(nn.Module):
    """A loss on labels as a distillation calls it, so that a student alone learns from the very same."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor | Sequence[Tensor], label: Tensor) -> Tensor:
        return loss_on_labels(self.loss, logits, label)


def _data_parallel(network: nn.Module, settings: StageSettings) -> DistributedDataParallel:
    device = torch.device(settings.device)
    if getattr(settings.inferer, "channels_last", False):  # the wrapper fixes the layout of its buckets
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
