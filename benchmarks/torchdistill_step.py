"""A step of torchdistill 1.1.5 among those of step_cost.py: same networks, batch and losses, in turns.

torchdistill is no dependency of this project. It gets an environment of its own, into which this project goes too:

    python -m venv torchdistill-environment
    torchdistill-environment/bin/python -m pip install -c constraints.txt -e . numpy pyyaml scipy
    torchdistill-environment/bin/python -m pip install --no-deps torchdistill==1.1.5
    torchdistill-environment/bin/python benchmarks/torchdistill_step.py

``--no-deps`` leaves out torchvision, whose wheels on PyPI want a torch with CUDA. torchdistill imports it for data sets
and networks that take no part here, so empty modules stand in for it.

The teacher is put into evaluation mode before torchdistill gets it, which does not do so itself. Its loss on attention
is a mean over positions, so each layer is weighed by its number of positions, which gives the sum over positions that
this package takes by default. The losses that are printed agree.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from step_cost import (
    BATCH,
    CASES,
    LEARNING_RATE,
    Case,
    Contestant,
    Material,
    contestants,
    heading,
    measure,
    parsed_rounds,
)
from step_overhead import AT_WEIGHT, CE_WEIGHT, KD_WEIGHT, LAYERS, TEMPERATURE
from torch import Tensor, nn

NAME = "torchdistill 1.1.5"
_STAND_INS = {
    "torchvision": [],
    "torchvision.datasets": [],
    "torchvision.models": [],
    "torchvision.models.densenet": ["_DenseBlock", "_Transition"],
    "torchvision.models.resnet": ["BasicBlock", "conv1x1"],
}


@cache
def distillation() -> Any:
    """The module of torchdistill, imported with stand-ins for what it asks of torchvision."""
    for path, names in _STAND_INS.items():
        module = sys.modules[path] = ModuleType(path)
        for name in names:
            setattr(module, name, type(name, (nn.Module,), {}))
        parent, _, child = path.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    return importlib.import_module("torchdistill.core.distillation")


def criterion(side: int) -> dict[str, Any]:
    """Cross entropy, soft targets and attention of four layers, as torchdistill says it."""
    positions = {name: (side // 4 // 2**index) ** 2 for index, name in enumerate(LAYERS)}
    tapped = {name: {"io": "output", "path": name} for name in LAYERS}
    soft_targets = {
        "student_module_path": ".",
        "student_module_io": "output",
        "teacher_module_path": ".",
        "teacher_module_io": "output",
        "temperature": TEMPERATURE,
        "alpha": CE_WEIGHT,
        "beta": KD_WEIGHT,
    }
    attention = {
        "at_pairs": {
            name: {"teacher": tapped[name], "student": tapped[name], "weight": positions[name]} for name in LAYERS
        }
    }
    return {
        "key": "WeightedSumLoss",
        "kwargs": {
            "sub_terms": {
                "kd": {"criterion": {"key": "KDLoss", "kwargs": soft_targets}, "weight": 1.0},
                "at": {"criterion": {"key": "ATLoss", "kwargs": attention}, "weight": AT_WEIGHT},
            }
        },
    }


def distillation_box(
    teacher: nn.Module, student: nn.Module, frames: Any, side: int, sampler: dict[str, Any], **training: Any
) -> Any:
    """A trainer of torchdistill for pairs of frame and label; ``training`` is the rest of its configuration."""
    tapped = {"forward_proc": "forward_batch_only", "forward_hook": {"output": LAYERS}}
    configuration = {
        "train_data_loader": {"dataset_id": "frames", "sampler": sampler, "kwargs": {"batch_size": BATCH}},
        "teacher": {**tapped, "requires_grad": False},
        "student": tapped,
        "criterion": criterion(side),
        **training,
    }
    return distillation().get_distillation_box(
        teacher.eval(), student, {"frames": frames}, configuration, torch.device("cpu"), None, False, 1
    )


def by_torchdistill(case: Case, material: Material) -> Callable[[], Tensor]:
    """A step of torchdistill's distillation box."""
    batch = next(iter(material.loader))
    box = distillation_box(
        material.teacher(),
        material.student(),
        list(zip(batch["image"], batch["label"], strict=True)),
        case.side,
        {"class_or_func": torch.utils.data.SequentialSampler},
        num_epochs=1,
        optimizer={"key": "SGD", "kwargs": {"lr": LEARNING_RATE}},
    )
    box.pre_epoch_process(epoch=0)
    ((images, labels, supplement),) = box.train_data_loader

    def step() -> Tensor:
        loss = box.forward_process(images, labels, supplement)
        box.post_forward_process(loss)
        return loss.detach()

    return step


def main() -> None:
    """Measure each case."""
    asked = parsed_rounds(__doc__)
    torch.set_num_threads(1)
    for case in CASES:
        rounds = asked or case.rounds
        print(heading(case, rounds))
        material = Material(case)
        with tempfile.TemporaryDirectory() as cache_dir:
            entered = contestants(material, rounds, cache_dir)
            entered.append(Contestant.by_pytorch(NAME, by_torchdistill(case, material)))
            measure(entered, rounds, against=NAME)


if __name__ == "__main__":
    main()
