"""The bundle that a plain ``init`` begins with, also with a teacher that is known by its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

from monai_fetalkd.utils.files import folder_written_whole

from . import classification
from .classification import with_items
from .weights import WeightsPlan

__all__ = ["write_starter"]

_STARTER = Path(__file__).parents[1] / "starter"

_README = Template(
    """\
# $network distilled from $weights

A $network that learns $task from a $teacher, whose weights `$weights` are read where they are. Written by
`python -m monai_fetalkd init`. Its own weights are not here yet: they come from the training below.

**Do this first.** A teacher is of use only on images like those of its training, and no file of weights says what those
went through. Make `preprocessing` of `configs/inference.json` the same, and the size that the networks take,
`spatial_shape` in `configs/metadata.json`. The teacher's row in the table shows whether they are right.

From this folder, with `monai-fetalkd[bundle]` installed:

| what | command |
| --- | --- |
| all stages and the table | `python -m monai.bundle run --config_file configs/train.json` |
| one stage alone | the same with `--run_id` $stages |
| fewer epochs | the same with `--train#epochs 20` |
| go on after an interruption | the same with `--resume true` |
| $use | `python -m monai.bundle run --config_file configs/inference.json --dataset_dir FOLDER` |

Data come from `dataset_dir` in `configs/train.json`, a datalist split by patient. Weights go to `models/` (`model.pt`
is the distilled student), the table and metrics by class to `eval/metrics.json`, curves to `eval/` for TensorBoard, and
$predictions.
"""
)


def write_starter(folder: Path, plan: WeightsPlan | None = None) -> None:
    """Write the starter, whole or not at all.

    Args:
        folder: the new folder.
        plan: the teacher, student and data that take the place of those of the example.
    """
    with folder_written_whole(folder) as part:
        shutil.copytree(_STARTER, part, dirs_exist_ok=True)
        if plan is None:
            return
        _edit(part / "configs" / "metadata.json", lambda content: _described(content, plan))
        _edit(part / "configs" / "inference.json", lambda content: _inferring(content, plan))
        _edit(part / "configs" / "train.json", lambda content: _training(content, plan))
        (part / "docs" / "README.md").write_text(_readme(plan), encoding="utf-8")


def _edit(path: Path, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    content = changed(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _described(metadata: dict[str, Any], plan: WeightsPlan) -> dict[str, Any]:
    network, title = type(plan.student_network).__name__, plan.images.task.capitalize()
    metadata["name"] = f"{title} by a distilled network"
    metadata["task"] = f"{title} by a small student network distilled from a larger teacher"
    metadata["description"] = f"A {network} distilled from '{plan.weights.name}' on '{plan.images.path.name}'."
    metadata["data_source"] = plan.images.path.name
    taken, given = (metadata["network_data_format"][key] for key in ("inputs", "outputs"))
    channels, *size = plan.image_shape
    taken["image"] |= {"num_channels": channels, "spatial_shape": size}
    taken["image"]["channel_def"] = {str(channel): f"channel {channel}" for channel in range(channels)}
    given["pred"] |= {"num_channels": len(plan.class_names), "spatial_shape": [] if _classifies(plan) else size}
    given["pred"]["channel_def"] = {str(number): name for number, name in enumerate(plan.class_names)}
    return with_items(metadata, classification.METADATA) if _classifies(plan) else metadata


def _inferring(config: dict[str, Any], plan: WeightsPlan) -> dict[str, Any]:
    if _classifies(plan):
        config = with_items(config, classification.INFERENCE)
    config["network_def"] = plan.student
    if len(plan.image_shape) == 3:  # a picture has no orientation in the patient
        steps = config["preprocessing"]["transforms"]
        config["preprocessing"]["transforms"] = [one for one in steps if one["_target_"] != "Orientationd"]
    config["dataset"]["data"] = config["dataset"]["data"].replace("*.nii*", f"*{plan.images.suffix}")
    config["run"][0] = config["run"][0].replace("NIfTI files", f"files '*{plan.images.suffix}'")
    return config


def _training(config: dict[str, Any], plan: WeightsPlan) -> dict[str, Any]:
    if _classifies(plan):
        config = with_items(config, classification.TRAINING)
    dims = len(plan.image_shape) - 1
    train = config["train"]
    config["dataset_dir"] = str(plan.images.path)
    config["teacher"] = {"network_def": plan.definition, "network": config["teacher"]["network"]}
    config["teacher"]["ckpt"] = str(plan.weights)
    train["lr"] = 0.001  # that of the starter is for its own small network
    train["random_transforms"] = [one for one in train["random_transforms"] if one.get("spatial_axis", 0) < dims]
    config["run"].remove("@run_teacher")
    del config["run_teacher"]
    if plan.definition is None:
        _leave_out_layers(config)
        config["initialize"][-1] = "$(@baseline#trainer, @train#trainer)"
    else:
        config["layers"], config["teacher_layers"] = ([pair[side] for pair in plan.pairs] for side in (0, 1))
        config["initialize"][-1] = "$(@baseline#trainer, @attention#trainer, @train#trainer)"
    return config


def _classifies(plan: WeightsPlan) -> bool:
    return plan.images.task == "classification"


def _leave_out_layers(config: dict[str, Any]) -> None:
    """Make of the two stages the second alone, whose teacher is TorchScript."""
    train, distillation = config["train"], config["distillation"]
    config["teacher"]["network"] = "$torch.jit.load(@teacher#ckpt, map_location='cpu').to(@device)"
    config["attention"] = {"initial": config["attention"]["initial"]}
    config["baseline"]["epochs"] = "$round(@train#trainer#max_epochs / (1 - @unlabelled_share))"
    config["run"].remove("@run_attention")
    config["initialize"] = [step for step in config["initialize"] if "check_layers" not in step]
    train["start_from"] = "@attention#initial"
    for name in ("layers", "teacher_layers", "attention_loss", "at_weight", "run_attention"):
        del config[name]
    del config["teacher"]["network_def"], train["loss"]["feature_losses"], train["loss"]["feature_weights"]
    del distillation["student_layers"], distillation["teacher_layers"]


def _readme(plan: WeightsPlan) -> str:
    attention = "" if plan.definition is None else "`run_attention`, "
    classifies = _classifies(plan)
    return _README.substitute(
        network=type(plan.student_network).__name__,
        teacher="network in TorchScript" if plan.definition is None else type(plan.teacher_network).__name__,
        weights=plan.weights.name,
        task=plan.images.task,
        stages=f"`run_baseline`, {attention}`run_distillation` or `run_summary`",
        use=f"{'classify' if classifies else 'segment'} a folder of `*{plan.images.suffix}`",
        predictions="class probabilities to `eval/predictions.csv`" if classifies else "segmentations to `eval/`",
    )
