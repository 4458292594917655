r"""Start a distillation bundle: for a bundle that you have, or for a task of your own.

With --teacher it reads a MONAI bundle with a trained network, makes the same network smaller, pairs the layers of both,
and writes a bundle into the new folder DIR: configs/distill.json, to be read after the training config of the teacher
bundle, and an inference config and metadata of its own. The teacher bundle is left as it is.

Where there are weights alone, --teacher names a TorchScript file, or a checkpoint whose network --network defines, and
--datalist the data: a MONAI datalist of images and segmentations. The bundle in DIR then stands alone.

Without a teacher, the bundle in DIR is an example to change: segmentation in 3-D, any network and any data. It trains a
teacher, a student alone and the same student under the teacher, and runs as it is, on generated volumes, in a few
minutes on a CPU. DIR/docs/README.md says which lines to change for your own networks, classes and files.

For example

  python -m monai_fetalkd init small_spleen --teacher spleen_ct_segmentation --reduce 2
  python -m monai.bundle run --bundle_root small_spleen \
      --config_file "['spleen_ct_segmentation/configs/train.json','small_spleen/configs/distill.json']"

  python -m monai_fetalkd init small_liver --teacher liver.ts --student unet.json --datalist liver/datalist.json
  python -m monai.bundle run --config_file small_liver/configs/train.json --bundle_root small_liver

  python -m monai_fetalkd init liver
  python -m monai.bundle run --config_file liver/configs/train.json --bundle_root liver
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from monai_fetalkd.commands.values import path

if TYPE_CHECKING:
    from monai_fetalkd.bundle.distil.plan import DistillationPlan
    from monai_fetalkd.bundle.distil.weights import WeightsPlan

__all__ = ["add_arguments", "run"]

_FILES = ("network", "datalist", "student")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("dir", type=path, metavar="DIR", help="folder of the bundle; it must not exist yet")
    parser.add_argument(
        "--teacher", type=path, metavar="PATH", help="folder of a bundle with a trained network, or a file of weights"
    )
    parser.add_argument(
        "--network", type=path, metavar="FILE", help="JSON or YAML with the definition of the network of a checkpoint"
    )
    parser.add_argument("--datalist", type=path, metavar="FILE", help="MONAI datalist for a teacher without a bundle")
    student = parser.add_mutually_exclusive_group()
    student.add_argument(
        "--reduce", type=float, metavar="N", help="divide the widths of the teacher's network by this number (2)"
    )
    student.add_argument(
        "--student", type=path, metavar="FILE", help="JSON or YAML with the definition of another network"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the bundle.

    Args:
        arguments: what :func:`add_arguments` defines.

    Returns:
        0.

    Raises:
        FileExistsError: when there is such a folder already.
        FileNotFoundError: when the folder around it does not exist, or there is no such teacher.
        ValueError: when the teacher's network cannot be distilled.
    """
    folder = Path(arguments.dir)
    if folder.exists():
        raise FileExistsError(f"'{folder}' exists already: give a folder that does not.")
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder '{folder.absolute().parent}' does not exist: make it first.")
    files = {name: None if (given := getattr(arguments, name)) is None else Path(given) for name in _FILES}
    teacher = None if arguments.teacher is None else Path(arguments.teacher)
    if teacher and (teacher / "configs").is_dir() and folder.resolve().is_relative_to(teacher.resolve()):
        raise ValueError(f"'{folder}' lies inside the teacher bundle, which is left as it is: give another folder.")
    if teacher is None:
        if told := [f"--{name}" for name in ("reduce", *_FILES) if getattr(arguments, name) is not None]:
            raise ValueError(f"{' and '.join(told)} need a teacher: give one as --teacher.")
        _start(folder)
    elif teacher.is_file():
        _distil_weights(folder, teacher, arguments.reduce, **files)
    else:
        if told := [f"--{name}" for name in ("network", "datalist") if files[name] is not None]:
            raise ValueError(f"Leave out {' and '.join(told)}: the bundle '{teacher}' has its own network and data.")
        _distil_bundle(folder, teacher, arguments.reduce, files["student"])
    print(f"Then read '{folder / 'docs' / 'README.md'}'.")
    return 0


def _start(folder: Path) -> None:
    from monai_fetalkd.bundle.distil.starter import write_starter

    write_starter(folder)
    print(f"The bundle is in '{folder}'. Try it:\n")
    print(f"  python -m monai.bundle run --config_file {folder}/configs/train.json --bundle_root {folder}\n")


def _distil_weights(
    folder: Path, weights: Path, reduce: float | None, network: Path | None, datalist: Path | None, student: Path | None
) -> None:
    from monai_fetalkd.bundle.distil.starter import write_starter
    from monai_fetalkd.bundle.distil.weights import plan_weights

    plan = plan_weights(weights, network, datalist, reduce, student)
    _show(plan)
    write_starter(folder, plan)
    print(
        f"The bundle is in '{folder}'. Make 'preprocessing' of its configs/inference.json that which '{weights.name}' "
        "was trained with. Then train it:\n"
    )
    print(f"  python -m monai.bundle run --config_file {folder}/configs/train.json --bundle_root {folder}\n")


def _distil_bundle(folder: Path, root: Path, reduce: float | None, student: Path | None) -> None:
    from monai_fetalkd.bundle.distil.config import importable
    from monai_fetalkd.bundle.distil.plan import plan_distillation
    from monai_fetalkd.bundle.distil.writing import has_scripts, write_bundle

    with importable(root):
        plan = plan_distillation(root, reduce, student)
        _show(plan)
        write_bundle(plan, folder)
    path = f"PYTHONPATH={folder} " if has_scripts(plan) else ""
    data = " --dataset_dir DATA" if "dataset_dir" in plan.teacher.train.raw else ""
    print(f"The bundle is in '{folder}'. Train it{', on your copy of the data' if data else ''}:\n")
    configs = f"['{plan.teacher.train.path}','{folder}/configs/distill.json']"
    print(f'  {path}python -m monai.bundle run --config_file "{configs}" --bundle_root {folder}{data}\n')


def _show(plan: DistillationPlan | WeightsPlan) -> None:
    from monai_fetalkd.evaluation.cost import multiply_accumulates
    from monai_fetalkd.utils.markdown import markdown_table

    rows = [["", "network", "parameters", "million multiply-accumulates"]]
    for name, network in (("teacher", plan.teacher_network), ("student", plan.student_network)):
        parameters = sum(parameter.numel() for parameter in network.parameters())
        macs = multiply_accumulates(network, plan.image_shape)
        rows.append([name, type(network).__name__, f"{parameters:,}", f"{macs / 1e6:,.1f}"])
    print(f"For an image of {' x '.join(map(str, plan.image_shape))}:\n\n{markdown_table(rows)}\n")
    if plan.pairs:
        layers = markdown_table([["student", "teacher"], *map(list, plan.pairs)])
        print(f"Layers that are compared in stage 1:\n\n{layers}\n")
