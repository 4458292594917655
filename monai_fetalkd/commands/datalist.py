"""Make a datalist (JSON) from what you have, split by patient.

SOURCE is one of

  the folder of FETAL_PLANES_DB as published
  a table of files (CSV or TSV), one row a frame
  a folder per class, of pictures or of DICOM from the scanner
  a folder or table of images with masks, for segmentation
  a datalist (JSON), to split it anew or into folds

A split that the source has is kept; otherwise patients are held out, stratified by class. Patient ids are written as
salted hashes, image paths as they are. Other columns and header entries than those named below are not written. What
is left out is counted, by reason.

For example

  python -m monai_fetalkd datalist /data/FETAL_PLANES_DB --output planes.json
  python -m monai_fetalkd datalist frames.csv --label_column plane --group_column mrn --output planes.json
  python -m monai_fetalkd datalist /data/by_class --classes abdomen brain other --folds 5 --output planes.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_fetalkd.ultrasound.data.datalist import Datalist

from monai_fetalkd.commands.values import path

__all__ = ["add_arguments", "run"]

_COLUMNS = {
    "image": "path of the image, with or without extension",
    "label": "class name or number",
    "mask": "path of the mask, for segmentation",
    "group": "patient, or whatever belongs in one split (default: group_id, group, patient_id or exam_id)",
    "source": "hospital or dataset (default: dataset or source)",
    "split": "train, val, test or unlabelled",
    "frame": "number of the frame in a file of several, from 0",
    "machine": "ultrasound machine",
    "operator": "operator",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", type=path, metavar="SOURCE", help="what holds the frames, see above")
    parser.add_argument(
        "--output", type=path, required=True, metavar="JSON", help="datalist to write; an older one is replaced"
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="class names in the order of their labels (default: those found)"
    )
    parser.add_argument(
        "--missing", choices=("error", "skip"), default="error", help="frames without an image: refuse, or leave out"
    )

    parser.add_argument(
        "--unlabelled",
        type=path,
        metavar="PATH",
        help="frames without labels to add for training: a folder of frames or cines, a list of files (.txt) or a "
        "table; those of patients held out for validation or testing are left out",
    )

    split = parser.add_argument_group("split")
    split.add_argument("--new_split", action="store_true", help="split anew, whatever split the source has")
    split.add_argument("--test", type=float, default=0.2, metavar="PART", help="part held out for testing (0.2)")
    split.add_argument("--val", type=float, default=0.15, metavar="PART", help="part of the rest for validation (0.15)")
    split.add_argument("--folds", type=int, metavar="N", help="deal what is not for testing into folds instead")
    split.add_argument("--seed", type=int, default=0, help="the same seed gives the same split (0)")

    privacy = parser.add_argument_group("privacy")
    privacy.add_argument(
        "--salt_file",
        type=path,
        metavar="PATH",
        help="keep the salt of the hashes here, so that a later run gives the same keys; keep it as safe as the "
        "patient ids (default: a salt that is not kept)",
    )
    privacy.add_argument(
        "--plain_groups", action="store_true", help="do not hash groups and operators: they are pseudonyms already"
    )

    planes = parser.add_argument_group("FETAL_PLANES_DB")
    planes.add_argument(
        "--task", choices=("planes", "brain_planes"), help="the six planes (default), or the three of the brain"
    )

    table = parser.add_argument_group("tables (a column has the name of its option by default)")
    for meaning, text in _COLUMNS.items():
        table.add_argument(f"--{meaning}_column", metavar="NAME", help=text)
    table.add_argument(
        "--images", type=path, metavar="FOLDER", help="folder of the images (default: that of the table)"
    )

    folders = parser.add_argument_group("folders")
    folders.add_argument(
        "--group_pattern",
        metavar="REGEX",
        help="finds the patient in a path below the folder of a class, or that of images, such as '(Patient[0-9]+)' "
        "(default: the patient id of a DICOM file, else the folder below that of the class)",
    )
    folders.add_argument("--cine_step", type=int, metavar="N", help="take each N-th frame of a cine (1)")


def run(arguments: argparse.Namespace) -> int:
    """Write the datalist and tell what it holds."""
    from monai_fetalkd.ultrasound.data.datalist import read_source
    from monai_fetalkd.utils.machine import check_writable

    output = Path(arguments.output)
    if output.suffix.lower() != ".json" or output.is_dir():
        raise ValueError(f"A datalist is a file that ends in .json, not '{output}': name one as --output.")
    check_writable(output.parent)
    columns = {meaning: getattr(arguments, f"{meaning}_column") for meaning in _COLUMNS}
    names = "task images group_pattern cine_step unlabelled val test folds seed new_split missing"
    datalist = read_source(
        arguments.source,
        arguments.classes,
        columns={meaning: name for meaning, name in columns.items() if name is not None} or None,
        salt_file=arguments.salt_file,
        plain_groups=arguments.plain_groups,
        **{name: getattr(arguments, name) for name in names.split()},
    )
    if not datalist.sections:
        raise ValueError(f"There are no frames to list in '{arguments.source}'.")
    datalist.validate()
    datalist.save(arguments.output)
    print(_table(datalist))
    if hidden := datalist.unlabelled:
        print(f"unlabelled: {len(hidden)} frames of {len({row['group'] for row in hidden})} groups")
    left_out = [f"{count} {reason}" for reason, count in datalist.provenance["left_out"].items()]
    for text in left_out or ["nothing"]:
        print(f"left out: {text}")
    print(f"written: {arguments.output}")
    return 0


def _table(datalist: Datalist) -> str:
    """Frames by class and section, and the number of groups."""
    counts = list(datalist.counts().values())
    rows = {name: [count[name] for count in counts] for name in counts[0]}
    rows["all frames"] = [len(members) for members in datalist.sections.values()]
    rows["groups"] = [len({row["group"] for row in members}) for members in datalist.sections.values()]
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{column:>12}" for column in (*datalist.sections, "sum"))]
    lines += [f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in (*row, sum(row))) for name, row in rows.items()]
    return "\n".join(lines)
