"""Start a distillation bundle for a task of your own: segmentation in 3-D to begin with, any network and any data.

It writes a MONAI bundle into the new folder DIR: configs that train a teacher, a student alone and the same student
under the teacher (attention at hidden layers, then soft targets at each voxel) and print one table; inference with
MONAI alone; metadata for the Model Zoo. It runs as it is, on generated volumes, in a few minutes on a CPU.
DIR/docs/README.md says which lines to change for your own networks, classes and files.

For example

  python -m monai_fetalkd init liver
  python -m monai.bundle run --config_file liver/configs/train.json --bundle_root liver
  python -m monai.bundle run --config_file liver/configs/train.json --bundle_root liver --dataset_dir liver.json
"""

from __future__ import annotations

import argparse

from monai_fetalkd.commands.values import path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("dir", type=path, metavar="DIR", help="folder of the bundle; it must not exist yet")


def run(arguments: argparse.Namespace) -> int:
    """Write the bundle.

    Args:
        arguments: what :func:`add_arguments` defines.

    Returns:
        0.

    Raises:
        FileExistsError: when there is such a folder already.
        FileNotFoundError: when the folder around it does not exist.
    """
    import shutil
    from pathlib import Path

    folder = Path(arguments.dir)
    if folder.exists():
        raise FileExistsError(f"'{folder}' exists already: give a folder that does not.")
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder '{folder.absolute().parent}' does not exist: make it first.")
    part = folder.with_name(f"{folder.name}.part")  # so that there is a whole bundle, or none
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(Path(__file__).parents[1] / "bundle" / "starter", part)
    part.rename(folder)
    print(f"The bundle is in '{folder}'. Try it:\n")
    print(f"  python -m monai.bundle run --config_file {folder}/configs/train.json --bundle_root {folder}\n")
    print(f"Then read '{folder / 'docs' / 'README.md'}'.")
    return 0
