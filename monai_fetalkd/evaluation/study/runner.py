"""Runs the cells of a study that are not finished yet."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_fetalkd.bundle.arguments import check_names, read_values, set_items
from monai_fetalkd.evaluation.study.cell import OUTPUT, run_cell
from monai_fetalkd.evaluation.study.data import write_datalists
from monai_fetalkd.evaluation.study.plan import Cell, Study
from monai_fetalkd.evaluation.study.workers import TaskError, run_in_order
from monai_fetalkd.utils.machine import check_writable

__all__ = ["run_study"]

# what a cell uses of the config besides the section of its stage; all that these refer to comes with them, so not
# "initialize", which makes all stages to check them
_ALWAYS_USED = ("imports", "finalize", "validate", "test")
_FURTHER_CONFIGS = ("inference.json", "metadata.json")  # which the others read


def _tell(line: str) -> None:
    print(line, flush=True)  # now, also where it goes to a file


def run_study(
    study: Study,
    output_dir: str | os.PathLike[str],
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    arms: Collection[str] | None = None,
    seeds: Sequence[int] | None = None,
    tell: Callable[[str], None] = _tell,
) -> None:
    """Run what is not finished yet of a study.

    It may be killed at any time: the same call goes on where it was, and ends with the same predictions.

    Args:
        study: the study.
        output_dir: its folder. It may hold other arms, seeds and folds of the same study.
        dataset_dir: what holds the frames, as for :func:`monai_fetalkd.ultrasound.data.load_datalist`; by default that
            of the config, which is read, or generated, once for all cells.
        jobs: processes that train at once, one thread each.
        arms: names of the arms wanted, all by default; what they start from comes with them.
        seeds: seeds instead of those of the study.
        tell: given a line for each finished cell; prints it by default.

    Raises:
        ValueError: when an arm changes what the config does not have, the output folder holds something made with other
            settings or data, or the data are too few.
        OSError: when the output folder cannot be written.
        ChildProcessError: when a cell fails; those finished before stay.
    """
    output = Path(output_dir).absolute()
    check_writable(output)
    cells = _with_config(study, list(study.cells(output, arms, seeds)))
    _check_arms(study)
    _write_data(study, output, dataset_dir)
    unfinished = {cell.folder: cell for cell in cells if not cell.result.is_file()}
    finished = len(cells) - len(unfinished)
    if finished:
        tell(f"{finished} of {len(cells)} cells are finished already")
    tasks = {folder: (study.configs, cell) for folder, cell in unfinished.items()}
    needs = {folder: set(cell.needs) for folder, cell in unfinished.items()}
    start = time.monotonic()
    try:
        with closing(run_in_order(run_cell, tasks, needs, jobs)) as done:
            for number, folder in enumerate(done, start=1):
                left = (time.monotonic() - start) / number * (len(unfinished) - number)
                tell(f"[{finished + number}/{len(cells)}] {_line(unfinished[folder])}, {left / 60:.0f} min left")
    except TaskError as error:
        raise ChildProcessError(
            f"{unfinished[error.task].name}: {error.reason.rstrip('.')} (see '{error.task / OUTPUT}')."
        ) from error


def _check_arms(study: Study) -> None:
    """Check what the arms change in the config, before the first of them is trained."""
    folder = Path(study.configs[0]).parent
    for name, arm in study.arms.items():
        parser = ConfigParser()
        parser.read_config(list(study.configs))
        try:
            set_items(parser, {**study.set, **arm.set})
            check_names(parser, folder)
            read_values(parser.get())
        except ValueError as error:
            raise ValueError(f"The arm '{name}': {error}") from None


def _line(cell: Cell) -> str:
    result = _read(cell.result)
    accuracy = "" if result["accuracy"] is None else f"accuracy {result['accuracy']:.3f}, "
    return f"{cell.name}: {accuracy}{result['seconds'] / 60:.1f} min"


def _write_data(study: Study, output: Path, dataset_dir: str | os.PathLike[str] | None) -> None:
    parser = ConfigParser()
    parser.read_config(list(study.configs))
    parser.update({**study.set, "bundle_root": study.bundle_root, "output_dir": str(output)})
    if dataset_dir is not None:
        parser["dataset_dir"] = str(dataset_dir)
    if study.folds is not None:  # a source without a split needs none
        parser.update({"datalist#val": 0, "datalist#test": 0})
    write_datalists(parser.get_parsed_content("datalist"), study.folds, output / "data")


def _with_config(study: Study, cells: Sequence[Cell]) -> list[Cell]:
    """The cells with what they use of the configs among their settings; those begun before must have had the same."""
    config = ConfigParser.load_config_files(list(study.configs))
    config |= {name: _read(Path(study.bundle_root, "configs", name)) for name in _FURTHER_CONFIGS}
    for arm in {cell.arm: study.arms[cell.arm] for cell in cells}.values():
        section = config.get(arm.stage)
        if not isinstance(section, Mapping) or not {"trainer", "ckpt"} <= section.keys():
            raise ValueError(f"The configs have no stage '{arm.stage}', that is, a section with 'trainer' and 'ckpt'.")
        if arm.start_from is not None and "start_from" not in section:
            raise ValueError(f"The stage '{arm.stage}' has no 'start_from', so it cannot start from an arm.")
    hashes = {stage: _hash(config, stage) for stage in {cell.stage for cell in cells}}
    cells = [replace(cell, settings=cell.settings | {"config": hashes[cell.stage]}) for cell in cells]
    for cell in cells:
        path = cell.folder / "settings.json"
        if path.is_file() and (before := _read(path)) != (now := json.loads(json.dumps(cell.settings))):
            changed = ", ".join(f"'{key}'" for key in now if before.get(key) != now[key])
            raise ValueError(
                f"'{cell.folder}' was made with other settings ({changed} changed): give another output_dir, or delete "
                "this folder."
            )
    return cells


def _hash(config: Mapping[str, Any], stage: str) -> str:
    """Hash the items of a config that a stage uses: a change elsewhere, as in the summary, is no change of a cell."""
    used = {name: config[name] for name in _FURTHER_CONFIGS}
    pending = [*_ALWAYS_USED, stage]
    while pending:
        name = pending.pop()
        if name in config and name not in used:
            used[name] = config[name]
            pending += re.findall(r"@(\w+)", json.dumps(config[name]))
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
