"""Frames without labels: a folder of frames or cines, a list of files, or a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from monai_fetalkd.ultrasound.data.datalist.class_folders import FileFacts
from monai_fetalkd.ultrasound.data.datalist.images import ImageFolder, list_frames
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED, Row, Source
from monai_fetalkd.ultrasound.data.datalist.table import read_table
from monai_fetalkd.ultrasound.frames import FrameError, count_frames

__all__ = ["read_unlabelled"]


def read_unlabelled(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] | None = None,
    group_pattern: str | None = None,
    cine_step: int = 1,
) -> Source:
    """List frames that have no label, a row for each frame of a cine.

    Args:
        path: a folder, a list of files (``.txt``, one path a line), or a table (``.csv``, ``.tsv``) with a column
            ``image``.
        columns: of a table: names of columns by meaning, see ``read_table``.
        images: of a list or table: the folder that paths are relative to; its own folder by default.
        group_pattern: finds the group (patient) in a path; by default the column of groups, the patient id of a DICOM
            file, or the first folder inside the folder.
        cine_step: take each n-th frame of a file of several.

    Returns:
        Its frames, all of the section ``unlabelled``.

    Raises:
        FileNotFoundError: when there is no such file or folder, or a folder holds no frame.
        ValueError: when it is none of these.
    """
    path = Path(path)
    facts = FileFacts(group_pattern, by_folder=path.is_dir())
    if cine_step < 1:
        raise ValueError(f"cine_step must be 1 or more, got {cine_step}.")
    if not path.exists():
        raise FileNotFoundError(f"The unlabelled frames '{path}' do not exist: give a folder, a list or a table.")
    folder = (path if path.is_dir() else path.parent if images is None else Path(images)).absolute()
    left_out: dict[str, int] = {}
    if path.is_dir():
        rows, masks, passed = list_frames(folder)
        left_out = passed | ({"masks beside their images": len(masks)} if masks else {})
    elif path.suffix.lower() in (".csv", ".tsv"):
        table = read_table(path, columns, images, labelled=False)
        rows, left_out = list(_each_frame(table.rows)), table.left_out
    elif path.suffix.lower() == ".txt":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        find = ImageFolder(folder).find
        rows = list(_each_frame({"image": find(line.strip())} for line in lines if line.strip()))
    else:
        raise ValueError(f"'{path}' is no folder, no list of files (.txt) and no table (.csv, .tsv) of frames.")
    if not rows:
        raise FileNotFoundError(f"There are no frames in '{path}'.")
    rows = [
        {"source": path.stem, **facts.of(row["image"], folder), **row, "section": UNLABELLED}
        for row in rows
        if row.get("frame", 0) % cine_step == 0
    ]
    return Source("unlabelled", path.name, folder, rows, groups_from=facts.groups_from, left_out=left_out)


def _each_frame(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        try:
            count = 1 if "frame" in row else count_frames(row["image"])
        except (FrameError, FileNotFoundError):
            count = 1  # whoever reads the frame will name it
        yield from [row] if count == 1 else [row | {"frame": number} for number in range(count)]
