r"""Export a trained student: ONNX in float32 and INT8, and .pt2, verified on frames of a datalist.

It needs the configs that trained the student, in the same order, for its network, its classes, and what a frame goes
through; export.json has to lie beside one of them, and the last counts. The folder gets student.onnx,
student.int8.onnx, student.pt2 and the report export.json.

Float32 files must predict PyTorch's class on every frame of the test split. The INT8 file, calibrated on training
frames, must predict it on enough of them; otherwise it is not written, and the command ends with status 1.

For example

  python -m monai_fetalkd export --config_file bundle/configs/train.json bundle/configs/ultrasound.json \
      --ckpt bundle/models/model.pt --dataset_dir planes.json --output_dir exported

What the training changed on its command line has to be changed here too: after `--image_size "[96,96]"`, say
`--set "image_size=[96,96]"`.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_fetalkd.commands.values import path, share
from monai_fetalkd.ultrasound.maps import LEAST_POSITIONS, is_fine
from monai_fetalkd.utils.markdown import plain_table
from monai_fetalkd.utils.requirements import require

__all__ = ["add_arguments", "run"]

_ANSWERED = {"coverage": "coverage", "accuracy": "accuracy of the answers"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--config_file", type=path, nargs="+", required=True, metavar="FILE", help="the configs of the training"
    )
    parser.add_argument(
        "--ckpt", type=path, required=True, metavar="FILE", help="checkpoint of the student, such as model.pt"
    )
    parser.add_argument("--output_dir", type=path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--dataset_dir", type=path, metavar="DATA", help="what holds the frames (default: as the configs say)"
    )
    parser.add_argument(
        "--agreement",
        type=share,
        metavar="SHARE",
        help="least share of frames on which INT8 decides as float32 does (default: as the configs say, 0.98)",
    )
    parser.add_argument(
        "--set",
        type=_item,
        action="extend",
        nargs="+",
        default=[],
        metavar="ITEM=VALUE",
        help="items of the configs to change, such as image_size=[96,96]",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older export in that folder")


def run(arguments: argparse.Namespace) -> int:
    """Export, verify, and print what came of it.

    Args:
        arguments: what :func:`add_arguments` defines.

    Returns:
        0

    Raises:
        ImportError: when what writes the files is not installed.
        ValueError, OSError: when an input does not fit, or a file is refused.
    """
    require("To export networks", "onnx", "onnxruntime", "onnxscript")
    from monai.bundle import ConfigWorkflow

    from monai_fetalkd.bundle.arguments import set_items
    from monai_fetalkd.utils.machine import root_error

    folders = [Path(config).absolute().parent for config in arguments.config_file]
    folder = next((one for one in reversed(folders) if (one / "export.json").is_file()), folders[0])
    configs = [*arguments.config_file, str(folder / "export.json")]
    for config in configs:
        if not Path(config).is_file():
            hint = ": only a bundle that has one, or whose teacher has, is exported so" if config == configs[-1] else ""
            raise FileNotFoundError(f"There is no config '{config}'{hint}.")
        _check_json(config)
    changes: dict[str, Any] = {
        "bundle_root": str(folder.parent),
        "ckpt": arguments.ckpt,
        "export_dir": arguments.output_dir,
        "overwrite": arguments.overwrite,
        **dict(arguments.set),
    }
    given = {"dataset_dir": arguments.dataset_dir, "agreement": arguments.agreement}
    changes |= {name: value for name, value in given.items() if value is not None}
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it warns of the logging config left out
    workflow = ConfigWorkflow(config_file=configs, logging_file=False)
    set_items(workflow.parser, changes)
    try:
        workflow.initialize()
        (content,) = workflow.run()
    except RuntimeError as error:
        raise root_error(error) from None
    print("\n".join([_table(content), "", *_notes(content)]))
    print(f"The files are in '{arguments.output_dir}', with all figures in export.json.")
    return 0


def _check_json(config: str) -> None:
    if not config.lower().endswith(".json"):  # MONAI reads YAML too
        return
    try:
        json.loads(Path(config).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"The config '{config}' is no valid JSON: {error}.") from None


def _item(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"an item is changed as ITEM=VALUE, not as {text}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # a word, a path, an expression


def _table(content: dict[str, Any]) -> str:
    score = "mean_dice" if "mean_dice" in content["student.onnx"] else "accuracy"
    threshold = content.get("threshold") or {"value": None}
    withholds = threshold["value"] is not None
    rows = [["", "bytes", "same class", score.replace("_", " "), *(_ANSWERED.values() if withholds else ())]]
    for name in ("student.onnx", "student.pt2", "student.int8.onnx"):
        if figures := content.get(name):
            found = [figures[score]]
            if withholds:
                answered = threshold["int8" if "int8" in name else "float32"]
                found += [answered[key] for key in _ANSWERED]
            told = ["-" if value is None else f"{value:.3f}" for value in found]
            rows.append([name, f"{figures['bytes']:,}", f"{figures['agreement']:.2%}", *told])
    return plain_table(rows)


def _notes(content: dict[str, Any]) -> Iterator[str]:
    threshold = (content.get("threshold") or {}).get("value")
    if threshold is not None:
        yield f"Below a probability of {threshold:.3f} it is undecided; coverage is the share of frames it answers."
    if attention := content.get("attention"):
        rows, columns = attention["grid"]
        too_few = "" if is_fine(attention["grid"]) else f", fewer than {LEAST_POSITIONS} x {LEAST_POSITIONS}: not shown"
        yield f"Its attention is that of {attention['layer']}, {rows} x {columns} positions{too_few}."
