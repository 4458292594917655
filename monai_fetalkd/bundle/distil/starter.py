"""The bundle that a plain ``init`` begins with, also with a teacher that is known by its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_fetalkd.utils.files import folder_written_whole

from .weights import WeightsPlan

__all__ = ["write_starter"]

_STARTER = Path(__file__).parents[1] / "starter"

_README = """
## The teacher of this bundle

It is `{weights}`, and is not trained here: `run` begins with the student alone. It is of use only on images like those
of its training: make `preprocessing` of `configs/inference.json` the same, and the class numbers. Its row in the table
shows whether they are. {stages}
"""


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
        _edit(part / "configs" / "metadata.json", lambda content: _describe(content, plan))
        _edit(part / "configs" / "inference.json", lambda content: _infer(content, plan))
        _edit(part / "configs" / "train.json", lambda content: _train(content, plan))
        stages = "" if plan.definition else "Layers inside TorchScript cannot be compared, so there is no stage 1."
        with (part / "docs" / "README.md").open("a", encoding="utf-8") as file:
            file.write(_README.format(weights=plan.weights.name, stages=stages).rstrip() + "\n")


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _describe(metadata: dict[str, Any], plan: WeightsPlan) -> None:
    name = type(plan.student_network).__name__
    metadata["description"] = f"A {name} distilled from '{plan.weights.name}' on '{plan.datalist.name}'."
    metadata["data_source"] = plan.datalist.name
    taken, given = (metadata["network_data_format"][key] for key in ("inputs", "outputs"))
    channels, *size = plan.image_shape
    taken["image"] |= {"num_channels": channels, "spatial_shape": size}
    taken["image"]["channel_def"] = {str(channel): f"channel {channel}" for channel in range(channels)}
    given["pred"] |= {"num_channels": len(plan.class_names), "spatial_shape": size}
    given["pred"]["channel_def"] = {str(number): name for number, name in enumerate(plan.class_names)}


def _infer(config: dict[str, Any], plan: WeightsPlan) -> None:
    config["network_def"] = plan.student
    dims = len(plan.image_shape) - 1
    if dims == 2:  # a picture has no orientation in the patient
        steps = config["preprocessing"]["transforms"]
        config["preprocessing"]["transforms"] = [one for one in steps if one["_target_"] != "Orientationd"]
    config["dataset"]["data"] = config["dataset"]["data"].replace("*.nii*", f"*{plan.suffix}")
    config["run"][0] = config["run"][0].replace("NIfTI files", f"files '*{plan.suffix}'")


def _train(config: dict[str, Any], plan: WeightsPlan) -> None:
    dims = len(plan.image_shape) - 1
    train = config["train"]
    config["dataset_dir"] = str(plan.datalist)
    config["teacher"] = {"network_def": plan.definition, "network": config["teacher"]["network"]}
    config["teacher"]["ckpt"] = str(plan.weights)
    train["random_transforms"] = [one for one in train["random_transforms"] if one.get("spatial_axis", 0) < dims]
    config["run"].remove("@run_teacher")
    del config["run_teacher"]
    if plan.definition is None:
        _leave_out_layers(config)
        config["initialize"][-1] = "$(@baseline#trainer, @train#trainer)"
    else:
        config["layers"], config["teacher_layers"] = ([pair[side] for pair in plan.pairs] for side in (0, 1))
        config["initialize"][-1] = "$(@baseline#trainer, @attention#trainer, @train#trainer)"


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
