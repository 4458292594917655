"""One cell of a study: a stage of the config is trained, and its network evaluated."""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import monai
import torch
from monai.bundle import ConfigWorkflow

from monai_fetalkd import __version__
from monai_fetalkd.bundle.process import set_up_process
from monai_fetalkd.evaluation.metrics import PredictionCollector
from monai_fetalkd.evaluation.study.plan import Cell
from monai_fetalkd.handlers import forget_stages
from monai_fetalkd.utils.checkpoints import load_weights
from monai_fetalkd.utils.files import written_whole
from monai_fetalkd.utils.hashing import hash_of_data

__all__ = ["OUTPUT", "run_cell"]

# what the config runs for a stage
_RUNS = {
    "teacher": "run_teacher",
    "baseline": "run_baseline",
    "attention": "run_attention",
    "train": "run_distillation",
}

OUTPUT = "output.txt"  # what the training of a cell prints, errors and their tracebacks included


def run_cell(job: tuple[tuple[str, ...], Cell]) -> None:
    """Train the stage of a cell, from where it was interrupted, and write what its network says of each frame.

    The cell's folder gets ``settings.json``, ``model.pt``, the logs, where the arm is scored ``validation.csv`` and
    ``testing.csv``, and, last, ``result.json`` with ``steps``, ``seconds``, ``accuracy``, ``initial_weights`` and
    ``versions``. What the training prints goes to ``output.txt`` there: standard output and error of this process are
    redirected for good, and its threads are those of the config.

    Args:
        job: the config files and the cell.
    """
    configs, cell = job
    cell.folder.mkdir(parents=True, exist_ok=True)
    _print_to(cell.folder / OUTPUT)
    _write(cell.folder / "settings.json", cell.settings)
    start = time.monotonic()
    workflow = _workflow(configs, cell)
    get = workflow.parser.get_parsed_content
    set_up_process(threads=get("threads", default=None))
    workflow.initialize()
    trainer = get(f"{cell.stage}#trainer")
    initial_weights = hash_of_data(trainer.network.state_dict())
    workflow.run()
    accuracy = None
    if cell.scored:
        load_weights(trainer.network, get(f"{cell.stage}#ckpt"))
        for split, section in (("validation", "validate"), ("testing", "test")):
            collector = PredictionCollector(get(f"{section}#dataset").data, get("class_names"))
            evaluator = get(f"cell#{split}")
            collector.attach(evaluator)
            evaluator.run()
            predictions = collector.predictions
            predictions.write(cell.predictions(split))
            accuracy = float((predictions.classes == predictions.labels).mean())
    workflow.finalize()
    _write(
        cell.result,
        {
            "steps": trainer.state.iteration,
            "seconds": round(time.monotonic() - start, 1),  # of the last process, where it was interrupted
            "accuracy": accuracy,
            "initial_weights": initial_weights,
            "versions": {"monai_fetalkd": __version__, "torch": torch.__version__, "monai": monai.__version__},
        },
    )
    forget_stages(cell.folder)  # three times the size of the weights, and of no use to a finished cell
    del workflow, trainer, get
    gc.collect()  # a config's objects refer to each other in rings, and the next cell needs the memory


def _workflow(configs: tuple[str, ...], cell: Cell) -> ConfigWorkflow:
    workflow = ConfigWorkflow(
        workflow_type="train", config_file=list(configs), logging_file=False, run_id="cell#run", **cell.overrides
    )
    parser = workflow.parser
    if cell.start_from is None and "start_from" in parser[cell.stage]:
        parser[cell.stage]["start_from"] = None  # and not from a stage that the config would run before
    parser["datalist"] = {  # of the study, in the place of whatever the config reads its frames from
        "_target_": "monai_fetalkd.ultrasound.data.load_datalist",
        "path": "@dataset_dir",
        "class_names": "@class_names",
        "task": None,  # read by class_names in train.json; the file names the classes itself
        "columns": None,
    }
    evaluator = {**parser["test"]["evaluator"], "network": f"$@{cell.stage}#trainer.network"}
    parser["cell"] = {
        "run": [f"@{_RUNS[cell.stage]}"],
        "validation": {**evaluator, "val_data_loader": "@validate#dataloader"},
        "testing": {**evaluator, "val_data_loader": "@test#dataloader"},
    }
    return workflow


def _print_to(path: Path) -> None:
    with path.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def _write(path: Path, content: dict[str, Any]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
