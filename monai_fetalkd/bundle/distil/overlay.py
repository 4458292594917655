"""The config of a distillation: an overlay over the training config of the teacher bundle."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai_fetalkd.losses import DistillationLoss

from .config import Component, Config
from .plan import DistillationPlan, current_definition
from .reading import removed_arguments

__all__ = ["checkpoint_name", "overlay_config"]

# arguments of the bundle's trainer that all stages take over
_OF_THE_TRAINER = (
    "amp",
    "amp_kwargs",
    "epoch_length",
    "non_blocking",
    "optim_set_to_none",
    "prepare_batch",
    "to_kwargs",
)
# arguments of the bundle's evaluator that name the teacher, or write into its folder
_NOT_OF_THE_EVALUATOR = ("network", "val_handlers")
# items and arguments that name a folder to write to
_WRITTEN = ("cache_dir", "ckpt_dir", "log_dir", "output_dir")

_BUNDLE_ROOT = re.compile(r"@bundle_root\b")


def overlay_config(plan: DistillationPlan, folder: Path) -> dict[str, Any]:
    """What is to be read after the training config of the teacher bundle, to distil its network.

    Data, transforms, loss, metric and inferer are references to the arguments of its trainer and its evaluator, so they
    stay what that config says, on whatever day it is read. Everything new is in one item, ``distil``; the items of the
    teacher bundle that change are ``run`` and those that look for files in its own folder. A bundle that was distilled
    itself says how: its loss and the settings of its stages stay too.

    Args:
        plan: what has been found out.
        folder: where the student bundle will be.

    Returns:
        The content of ``distill.json``.
    """
    teacher = plan.teacher
    train, trainer = teacher.train, teacher.trainer
    layers, teacher_layers = ([pair[side] for pair in plan.pairs] for side in (0, 1))
    shared = {
        "settings": "@distil#settings",
        **{key: f"@{trainer.arguments[key]}" for key in _OF_THE_TRAINER if key in trainer.arguments},
    }
    root = Path(os.path.relpath(teacher.root.resolve(), folder.resolve())).as_posix()
    distil: dict[str, Any] = {
        "teacher_root": f"$@bundle_root + '/{root}'",
        "ckpt_dir": "$@bundle_root + '/models'",
        "log_dir": "$@bundle_root + '/eval'",
        "targets_dir": "$@bundle_root + '/targets'",
        "inference_config": "$@bundle_root + '/configs/inference.json'",
        "device": _reference(trainer, "device", "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')"),
        "seed": 0,
        "resume": False,
        "quiet": False,
        "val_interval": 1,
        "views": 0,
        "timings": 5,
        "image_shape": list(teacher.image_shape),
        "student_layers": layers,
        "teacher_layers": teacher_layers,
        "lr": _learning_rate(train, trainer),
        "loss": _loss(plan),
        "label_loss": _label_loss(train, trainer),
        "attention_loss": {"_target_": "monai_fetalkd.losses.AttentionTransferLoss"},
        "evaluation": {
            "_target_": teacher.evaluator.name,
            "_mode_": "callable",
            **{key: f"@{id}" for key, id in teacher.evaluator.arguments.items() if key not in _NOT_OF_THE_EVALUATOR},
        },
        **_settings(train, trainer),
        "alone": {
            "_target_": "monai_fetalkd.bundle.stages.training_stage",
            "_mode_": "callable",
            **shared,
            "train_data_loader": f"$kd.bundle.distil.views.loader_of_views(@{trainer.arguments['train_data_loader']})",
            "loss_function": "@distil#label_loss",
            "start_from": "@distil#student#initial",
        },
        "under_teacher": {
            "_target_": "monai_fetalkd.bundle.stages.training_stage",
            "_mode_": "callable",
            **shared,
            "network": "@distil#student#network",
            "train_data_loader": (
                f"$kd.bundle.distil.views.loader_of_views(@{trainer.arguments['train_data_loader']}, @distil#views, "
                "@distil#seed)"
            ),
            "targets": "$kd.targets.TeacherTargets(@distil#targets_dir) if @distil#views else None",
            "teacher": "@distil#teacher#network",
            "teacher_path": "@distil#teacher#ckpt",
            "student_layers": "@distil#student_layers",
            "teacher_layers": "@distil#teacher_layers",
        },
        "teacher": {
            "network": f"@{trainer.arguments['network']}",
            "ckpt": _teacher_checkpoint(plan),
        },
        "student": {
            "network_def": _student_definition(plan),
            "network": "$@distil#student#network_def.to(@distil#device)",
            "initial": "$@distil#ckpt_dir + '/initial.pt'",
            "keep_initial": (
                "$kd.bundle.stages.keep_initial_weights(@distil#student#network, @distil#student#initial)"
            ),
        },
        "baseline": {
            "network": "$copy.deepcopy(@distil#student#network)",
            "ckpt": "$@distil#ckpt_dir + '/baseline.pt'",
            "epochs": "$@distil#attention#epochs + @distil#distillation#epochs",
            "trainer": _stage("alone", "student, alone", "baseline", network="@distil#baseline#network"),
        },
        "attention": {
            "ckpt": "$@distil#ckpt_dir + '/attention.pt'",
            "epochs": "$max(1, @distil#distillation#epochs // 4)",
            "trainer": _stage(
                "under_teacher", "stage 1, attention", "attention", loss_function="@distil#attention_loss"
            ),
        },
        "distillation": {
            "ckpt": f"$@bundle_root + '/{checkpoint_name(plan)}'",
            "epochs": _reference(trainer, "max_epochs", 100),
            "trainer": _stage(
                "under_teacher",
                "stage 2, distillation",
                "distillation",
                loss_function="@distil#loss",
                start_from="@distil#attention#ckpt",
            ),
        },
        "networks": (
            "${'teacher': (@distil#teacher#network, @distil#teacher#ckpt), "
            "'student, alone': (@distil#baseline#network, @distil#baseline#ckpt), "
            "'student, distilled': (@distil#student#network, @distil#distillation#ckpt)}"
        ),
    }
    return {
        **_extended(train.raw, "imports", ["$import copy", "$import dataclasses", "$import monai_fetalkd as kd"]),
        **_moved(train, _read_ids(plan)),
        **_current(plan),
        "distil": distil,
        **_around(
            plan,
            "initialize",
            [
                "$kd.bundle.workflow.prepare_run(@distil#device, @distil#log_dir, @distil#quiet)",
                "$monai.utils.set_determinism(seed=@distil#seed)",
                "$(@distil#baseline#trainer, @distil#attention#trainer, @distil#distillation#trainer)",
            ],
        ),
        "run": [
            "$None if @distil#resume else kd.handlers.forget_stages(@distil#ckpt_dir)",
            "@run_baseline",
            "@run_attention",
            "@run_distillation",
            "@run_summary",
        ],
        "run_baseline": "$(@distil#student#keep_initial, @distil#baseline#trainer.run())",
        "run_attention": "$(@distil#student#keep_initial, @distil#attention#trainer.run())",
        "run_distillation": "$(@distil#student#keep_initial, @distil#distillation#trainer.run())",
        "run_summary": (
            "$kd.evaluation.summary.compare_networks(@distil#evaluation(network=@distil#student#network), "
            "@distil#networks, @distil#image_shape, @distil#log_dir + '/metrics.json', @distil#timings)"
        ),
        **_around(plan, "finalize", ["$monai.utils.set_determinism(seed=None)", "$kd.utils.locks.release_folder()"]),
    }


def _stage(kind: str, title: str, stage: str, **arguments: str) -> dict[str, Any]:
    return {
        "_target_": f"@distil#{kind}",
        "name": title,
        **arguments,
        "path": f"@distil#{stage}#ckpt",
        "max_epochs": f"@distil#{stage}#epochs",
        "lr": "@distil#lr",
    }


def _settings(train: Config, trainer: Component) -> dict[str, Any]:
    """What the stages have in common, and the optimizer in it."""
    own = {name: f"@distil#{name}" for name in ("device", "log_dir", "seed", "resume", "val_interval")}
    own["evaluator"] = "@distil#evaluation"
    if "settings" in trainer.arguments:
        given = ", ".join([f"@{trainer.arguments['settings']}", *(f"{key}={value}" for key, value in own.items())])
        return {"settings": f"$dataclasses.replace({given})"}
    return {
        "optimizer": _optimizer(train, trainer),
        "settings": {
            "_target_": "monai_fetalkd.bundle.stages.StageSettings",
            **own,
            "optimizer": "@distil#optimizer",
            "inferer": _reference(trainer, "inferer", None),
        },
    }


def _loss(plan: DistillationPlan) -> dict[str, Any] | str:
    if _is_distilled(plan.teacher.train, plan.teacher.trainer):
        return f"@{plan.teacher.trainer.arguments['loss_function']}"
    dense = len(plan.output_shape) == len(plan.teacher.image_shape) + 1
    loss: dict[str, Any] = {
        "_target_": "monai_fetalkd.losses.DistillationLoss",
        "label_loss": "@distil#label_loss",
        "ce_weight": 1.0,
        "kd_weight": 0.3 if dense else 1.0,
    }
    if plan.head == "values":  # the teacher's values stand in for labels
        return loss | {"soft_target_loss": "@distil#label_loss"}
    return loss | {
        "temperature": 2.0,
        "feature_losses": "${'at': @distil#attention_loss}",
        "feature_weights": {"at": 0.0},
    }


def _is_distilled(train: Config, trainer: Component) -> bool:
    loss = train.component(trainer.arguments["loss_function"])
    return loss is not None and loss.target is DistillationLoss


def _label_loss(train: Config, trainer: Component) -> str:
    loss = trainer.arguments["loss_function"]
    return f"$@{loss}.label_loss" if _is_distilled(train, trainer) else f"@{loss}"


def _optimizer(train: Config, trainer: Component) -> dict[str, Any] | None:
    """The optimizer of the bundle, without what it optimizes; None where it is not written as a component."""
    id = trainer.arguments.get("optimizer")
    optimizer = None if id is None else train.component(id)
    if optimizer is None:
        return None
    kept = {key: f"@{id}" for key, id in optimizer.arguments.items() if key not in ("params", "lr")}
    return {"_target_": optimizer.name, "_mode_": "callable", **kept}


def _learning_rate(train: Config, trainer: Component) -> str | float:
    id = trainer.arguments.get("optimizer")
    optimizer = trainer if id is None else train.component(id)
    return _reference(optimizer, "lr", 0.001) if optimizer is not None else 0.001


def _reference(component: Component, key: str, default: Any) -> Any:
    return f"@{component.arguments[key]}" if key in component.arguments else default


def _student_definition(plan: DistillationPlan) -> Any:
    if plan.trained is not None:
        return plan.trained
    id = plan.teacher.definition.id
    return f"$kd.bundle.workflow.config_item(@distil#inference_config, '{id}', bundle_root=@bundle_root)"


def _read_ids(plan: DistillationPlan) -> Iterable[str]:
    """What the stages need of the teacher bundle."""
    trainer, evaluator = plan.teacher.trainer, plan.teacher.evaluator
    named = ("network", "train_data_loader", "loss_function", "inferer", "optimizer", *_OF_THE_TRAINER)
    yield from (trainer.arguments[key] for key in named if key in trainer.arguments)
    yield from (id for key, id in evaluator.arguments.items() if key not in _NOT_OF_THE_EVALUATOR)


def _moved(train: Config, ids: Iterable[str]) -> dict[str, str]:
    """What looks for files in the folder of its bundle, which is now that of the student."""
    return {
        id: _BUNDLE_ROOT.sub("@distil#teacher_root", text)
        for id, text in sorted(train.written(*ids).items())
        if isinstance(text, str) and _BUNDLE_ROOT.search(text) and id.split("#")[-1] not in _WRITTEN
    }


def _current(plan: DistillationPlan) -> dict[str, Any]:
    """The teacher's definition, where it has arguments that MONAI has removed."""
    trained = plan.teacher.trained
    if trained.config is not plan.teacher.train or not removed_arguments(trained):
        return {}
    return {trained.id: current_definition(trained)}


def checkpoint_name(plan: DistillationPlan) -> str:
    """Where a bundle of this kind has its weights, from its folder."""
    root, weights = plan.teacher.root.resolve(), plan.teacher.weights.resolve()
    inside = weights.relative_to(root) if weights.is_relative_to(root) else Path("models") / weights.name
    return inside.as_posix()


def _teacher_checkpoint(plan: DistillationPlan) -> str:
    weights = plan.teacher.weights.resolve()
    if not weights.is_relative_to(plan.teacher.root.resolve()):
        return str(weights)
    return f"$@distil#teacher_root + '/{checkpoint_name(plan)}'"


def _around(plan: DistillationPlan, id: str, items: list[str]) -> dict[str, list[str]]:
    """What is done before or after a run, beside what the teacher bundle does; for one of stages, in its place."""
    if "settings" in plan.teacher.trainer.arguments:
        return {id: items}
    return _extended(plan.teacher.train.raw, id, items)


def _extended(raw: dict[str, Any], id: str, items: list[str]) -> dict[str, list[str]]:
    return {f"+{id}" if isinstance(raw.get(id), list) else id: items}
