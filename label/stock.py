"""Make a copy of the bundle that MONAI Label's own app `monaibundle` can serve.

    python label/stock.py bundle APP/model/fetal_planes_classification --configs phantom.json

That app takes the task from the name of the folder, which must contain "classification", and reads ``inference.json``
and ``train.json`` alone. So whatever other configs say is merged into these two.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from monai.bundle import ConfigParser


def main() -> None:
    """Copy and merge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("target", type=Path, help="folder to make")
    parser.add_argument("--configs", nargs="*", default=[], help="configs to merge, such as phantom.json")
    parser.add_argument("--weights", type=Path, help="weights to start with, such as bundle/models/model.pt")
    arguments = parser.parse_args()
    try:
        make_stock_bundle(arguments.bundle, arguments.target, arguments.configs, arguments.weights)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def make_stock_bundle(bundle: Path, target: Path, configs: list[str], weights: Path | None = None) -> None:
    """Copy a bundle for the stock app.

    Args:
        bundle: folder of the bundle.
        target: folder to make.
        configs: names of configs to merge into ``inference.json`` and ``train.json``, in this order.
        weights: weights to copy as ``models/model.pt``; a ``teacher.pt`` beside them comes along.

    Raises:
        FileNotFoundError: when a config or the weights are missing.
        ValueError: when the target exists, or its name tells MONAI Label no classification.
    """
    if "classification" not in target.name:
        raise ValueError(
            f"MONAI Label takes '{target.name}' for a segmentation: name it '{target.name}_classification'."
        )
    if target.exists():
        raise ValueError(f"'{target}' exists already.")
    files = [bundle / "configs" / name for name in ("metadata.json", "inference.json", "train.json", *configs)]
    for file in [*files, *([] if weights is None else [weights])]:
        if not file.is_file():
            raise FileNotFoundError(f"There is no file '{file}'.")
    shutil.copytree(
        bundle,
        target,
        ignore=lambda folder, names: {*names} - {"configs", "docs", "LICENSE"} if Path(folder) == bundle else (),
    )
    for name in ("inference.json", "train.json"):
        merged = ConfigParser.load_config_files([str(bundle / "configs" / file) for file in (name, *configs)])
        if name == "train.json":
            merged["output_dir"] = "@bundle_root"  # where the stock app looks for weights after training
        (target / "configs" / name).write_text(json.dumps(merged, indent=4) + "\n", encoding="utf-8")
    (target / "models").mkdir()
    if weights is not None:
        shutil.copy(weights, target / "models" / "model.pt")
        if (description := weights.with_suffix(".json")).is_file():  # the classes that it was trained on
            shutil.copy(description, target / "models" / "model.json")
        if (teacher := weights.with_name("teacher.pt")).is_file():
            shutil.copy(teacher, target / "models" / "teacher.pt")


if __name__ == "__main__":
    main()
