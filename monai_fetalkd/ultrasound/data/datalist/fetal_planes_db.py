"""FETAL_PLANES_DB, the public dataset of common maternal fetal ultrasound planes."""

from __future__ import annotations

import os
from pathlib import Path

from monai_fetalkd.ultrasound.data.datalist.images import ImageFolder
from monai_fetalkd.ultrasound.data.datalist.rows import Row, Source
from monai_fetalkd.ultrasound.data.datalist.table import Table, sha256_of

__all__ = ["BRAIN_PLANES", "PLANES", "TABLE", "read_fetal_planes_db"]

TABLE = "FETAL_PLANES_DB_data.csv"

PLANES = ("Fetal abdomen", "Fetal brain", "Fetal femur", "Fetal thorax", "Maternal cervix", "Other")
BRAIN_PLANES = ("Trans-thalamic", "Trans-cerebellum", "Trans-ventricular")

# the classes of a task, the column that holds them, and what the frames of no class are
_TASKS = {
    "planes": (PLANES, "Plane", "frames of none of the six planes"),
    "brain_planes": (BRAIN_PLANES, "Brain_plane", "frames of none of the three brain planes"),
}
_SECTIONS = {"1": "training", "0": "testing"}
_ABOUT = {
    "name": "FETAL_PLANES_DB",
    "description": "Common maternal fetal ultrasound planes: 12,400 frames of 1,792 patients from two hospitals.",
    "licence": "CC BY 4.0",
    "reference": (
        "Burgos-Artizzu X. P. et al. Evaluation of deep convolutional neural networks for automatic classification of "
        "common maternal fetal ultrasound planes. Scientific Reports, 2020, 10: 10200. doi:10.1038/s41598-020-67076-5. "
        "Data: doi:10.5281/zenodo.3904280"
    ),
}


def read_fetal_planes_db(folder: str | os.PathLike[str], task: str = "planes") -> Source:
    """Read FETAL_PLANES_DB as it is published: ``FETAL_PLANES_DB_data.csv`` beside ``Images/*.png``.

    Its official split gives training and testing. A group is a patient, as ``fpdb-00001``: the published number is a
    pseudonym already, and keeping it lets results be compared between those who use the dataset.

    Args:
        folder: the folder of the dataset.
        task: ``"planes"``, the six planes of all frames, or ``"brain_planes"``, the three standard brain planes.

    Returns:
        Its frames.

    Raises:
        ValueError: when the task is unknown or the table is not the published one.

    References:
        X. P. Burgos-Artizzu et al.: Evaluation of deep convolutional neural networks for automatic classification of
        common maternal fetal ultrasound planes. Scientific Reports 10:10200, 2020. doi:10.1038/s41598-020-67076-5
    """
    if task not in _TASKS:
        raise ValueError(f"FETAL_PLANES_DB has no task '{task}': its tasks are {', '.join(_TASKS)}.")
    class_names, column, no_class = _TASKS[task]
    path = Path(folder) / TABLE
    images = ImageFolder(path.parent / "Images")
    table = Table.read(path)
    if column not in table.header:
        raise ValueError(
            f"The table '{path}' is not that of the published FETAL_PLANES_DB: it has no column {column} (it has "
            f"{', '.join(table.header) or 'none'})."
        )
    rows, left_out = [], 0
    for number, cells in table.lines:
        if cells[column] in class_names:
            rows.append(_row(cells, column, images, f"'{path}', line {number}"))
        else:
            left_out += 1
    return Source(
        "FETAL_PLANES_DB",
        path.absolute().parent.name,
        path.absolute().parent,
        rows,
        groups_from="the column 'Patient_num'",
        class_names=class_names,
        about=_ABOUT,
        record={"sha256": sha256_of(path)},
        settings={"task": task},
        left_out={no_class: left_out} if left_out else {},
        pseudonymous=True,
    )


def _row(cells: dict[str, str], column: str, images: ImageFolder, where: str) -> Row:
    try:
        return {
            "image": images.find(cells["Image_name"], ".png"),
            "label": cells[column],
            "group": f"fpdb-{int(cells['Patient_num']):05d}",
            "source": "FETAL_PLANES_DB",
            "machine": cells["US_Machine"],
            "operator": cells["Operator"],
            "section": _SECTIONS[cells["Train"]],
        }
    except (KeyError, ValueError) as error:
        raise ValueError(f"{where}: this is not a row of the published FETAL_PLANES_DB ({error}).") from error
