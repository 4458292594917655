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


def stand_in_for_torchvision() -> None:
    """Let torchdistill import the names that it asks of torchvision."""
    for path, names in _STAND_INS.items():
        module = sys.modules[path] = ModuleType(path)
        for name in names:
            setattr(module, name, type(name, (nn.Module,), {}))
        parent, _, child = path.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def configuration(side: int) -> dict[str, Any]:
    """Cross entropy, soft targets and attention of four layers, as torchdistill says it."""
    positions = {name: (side // 4 // 2**index) ** 2 for index, name in enumerate(LAYERS)}
    tapped = {name: {"io": "output", "path": name} for name in LAYERS}
    return {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "frames",
            "sampler": {"class_or_func": torch.utils.data.SequentialSampler},
            "kwargs": {"batch_size": BATCH},
        },
        "teacher": {
            "forward_proc": "forward_batch_only",
            "forward_hook": {"output": LAYERS},
            "requires_grad": False,
        },
        "student": {"forward_proc": "forward_batch_only", "forward_hook": {"output": LAYERS}},
        "optimizer": {"key": "SGD", "kwargs": {"lr": LEARNING_RATE}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {
                        "criterion": {
                            "key": "KDLoss",
                            "kwargs": {
                                "student_module_path": ".",
                                "student_module_io": "output",
                                "teacher_module_path": ".",
                                "teacher_module_io": "output",
                                "temperature": TEMPERATURE,
                                "alpha": CE_WEIGHT,
                                "beta": KD_WEIGHT,
                            },
                        },
                        "weight": 1.0,
                    },
                    "at": {
                        "criterion": {
                            "key": "ATLoss",
                            "kwargs": {
                                "at_pairs": {
                                    name: {"teacher": tapped[name], "student": tapped[name], "weight": positions[name]}
                                    for name in LAYERS
                                }
                            },
                        },
                        "weight": AT_WEIGHT,
                    },
                }
            },
        },
    }


def by_torchdistill(case: Case, material: Material) -> Callable[[], Tensor]:
    """A step of torchdistill's distillation box."""
    stand_in_for_torchvision()
    distillation: Any = importlib.import_module("torchdistill.core.distillation")
    batch = next(iter(material.loader))
    frames = list(zip(batch["image"], batch["label"], strict=True))
    box = distillation.get_distillation_box(
        material.teacher(),
        material.student(),
        {"frames": frames},
        configuration(case.side),
        torch.device("cpu"),
        None,
        False,
        1,
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
