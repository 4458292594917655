r"""Start a distillation bundle: for a bundle that you have, or for a task of your own.

With --teacher it reads a MONAI bundle with a trained network, makes the same network smaller, pairs the layers of both,
and writes a bundle into the new folder DIR: configs/distill.json, to be read after the training config of the teacher
bundle, and an inference config and metadata of its own. The teacher bundle is left as it is.

Without, the bundle in DIR is an example to change: segmentation in 3-D, any network and any data. It trains a teacher,
a student alone and the same student under the teacher, and runs as it is, on generated volumes, in a few minutes on a
CPU. DIR/docs/README.md says which lines to change for your own networks, classes and files.

For example

  python -m monai_fetalkd init small_spleen --teacher spleen_ct_segmentation --reduce 2
  python -m monai.bundle run --bundle_root small_spleen \
      --config_file "['spleen_ct_segmentation/configs/train.json','small_spleen/configs/distill.json']"

  python -m monai_fetalkd init liver
  python -m monai.bundle run --config_file liver/configs/train.json --bundle_root liver
"""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_fetalkd.commands.values import path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("dir", type=path, metavar="DIR", help="folder of the bundle; it must not exist yet")
    parser.add_argument("--teacher", type=path, metavar="BUNDLE", help="folder of a bundle with a trained network")
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
        FileNotFoundError: when the folder around it does not exist, or there is no such teacher bundle.
        ValueError: when the teacher's network cannot be distilled.
    """
    folder = Path(arguments.dir)
    if folder.exists():
        raise FileExistsError(f"'{folder}' exists already: give a folder that does not.")
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder '{folder.absolute().parent}' does not exist: make it first.")
    if arguments.teacher is not None:
        student = None if arguments.student is None else Path(arguments.student)
        _distil(folder, Path(arguments.teacher), arguments.reduce, student)
    elif arguments.reduce is not None or arguments.student is not None:
        raise ValueError("--reduce and --student make a student of a teacher bundle: give one as --teacher.")
    else:
        _start(folder)
    print(f"Then read '{folder / 'docs' / 'README.md'}'.")
    return 0


def _start(folder: Path) -> None:
    import shutil

    part = folder.with_name(f"{folder.name}.part")  # so that there is a whole bundle, or none
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(Path(__file__).parents[1] / "bundle" / "starter", part)
    part.rename(folder)
    print(f"The bundle is in '{folder}'. Try it:\n")
    print(f"  python -m monai.bundle run --config_file {folder}/configs/train.json --bundle_root {folder}\n")


def _distil(folder: Path, root: Path, reduce: float | None, student: Path | None) -> None:
    from monai_fetalkd.bundle.distil.config import importable
    from monai_fetalkd.bundle.distil.plan import plan_distillation
    from monai_fetalkd.bundle.distil.writing import has_scripts, write_bundle
    from monai_fetalkd.evaluation.cost import multiply_accumulates
    from monai_fetalkd.utils.markdown import markdown_table

    with importable(root):
        plan = plan_distillation(root, reduce, student)
    rows = [["network", "", "parameters", "MMAC"]]
    for name, network in (("teacher", plan.teacher_network), ("student", plan.student_network)):
        parameters = sum(parameter.numel() for parameter in network.parameters())
        macs = multiply_accumulates(network, plan.teacher.image_shape)
        rows.append([name, type(network).__name__, f"{parameters:,}", f"{macs / 1e6:,.1f}"])
    print(f"For an image of {' x '.join(map(str, plan.teacher.image_shape))}:\n\n{markdown_table(rows)}\n")
    print(
        f"Layers that are compared in stage 1:\n\n{markdown_table([['student', 'teacher'], *map(list, plan.pairs)])}\n"
    )
    with importable(root):
        write_bundle(plan, folder)
    path = f"PYTHONPATH={folder} " if has_scripts(plan) else ""
    print(f"The bundle is in '{folder}'. Train it:\n")
    configs = f"['{plan.teacher.train.path}','{folder}/configs/distill.json']"
    print(f'  {path}python -m monai.bundle run --config_file "{configs}" --bundle_root {folder}\n')
