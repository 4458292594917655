"""A folder per class: pictures, or DICOM from the machine."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from monai_fetalkd.data.datalist.rows import Row, Source, section_of
from monai_fetalkd.frames import FrameError, find_frames
from monai_fetalkd.frames.kinds import HEAD, sniff

__all__ = ["read_class_folders"]

logger = logging.getLogger(__name__)


def read_class_folders(folder: str | os.PathLike[str], group_pattern: str | None = None, cine_step: int = 1) -> Source:
    """Read every frame under ``<folder>/<class>/``, or under ``<folder>/train/<class>/`` and so on.

    The group of a frame is what ``group_pattern`` finds; else the patient id of the DICOM header; else the folder
    below that of the class (``<class>/<patient>/frame.png``); else its file alone, which is said in the log.

    Args:
        folder: the folder of the classes, or of ``train``, ``val`` and ``test``.
        group_pattern: regular expression with one capture group, searched in the path below the class folder.
        cine_step: take each n-th frame of a file of several.

    Returns:
        Its frames.

    Raises:
        FileNotFoundError: when there is no frame below any folder of the folder.
        ValueError: when the pattern is not understood or finds nothing in a path, or the step is below 1.
    """
    root = Path(folder).absolute()
    pattern = _compiled(group_pattern) if group_pattern is not None else None
    if cine_step < 1:
        raise ValueError(f"cine_step must be 1 or more, got {cine_step}.")
    rows: list[Row] = []
    files: dict[str, Row] = {}  # what is known of a file, as a cine has many frames and one header
    alone = 0
    for section, class_folder in _class_folders(root):
        known: Row = {"label": class_folder.name, "source": root.name}
        if section is not None:
            known["section"] = section
        for found in find_frames(class_folder):
            if found.get("frame", 0) % cine_step:
                continue
            image = found["image"]
            if image not in files:
                patient, machine = _header(image)
                group = _group(Path(image).relative_to(class_folder), patient, pattern)
                alone += group is None
                files[image] = {"group": group or os.path.relpath(image, root)}
                if machine is not None:
                    files[image]["machine"] = machine
            rows.append(found | known | files[image])
    if not rows:
        raise FileNotFoundError(
            f"There is no 'datalist.json' in the folder '{root}', nor any frame in a folder for each class: add one or "
            "the other, or give the path of a datalist (JSON or CSV)."
        )
    if alone:
        logger.warning("%d file(s) of '%s' tell nothing of the patient: each is a group of its own.", alone, root)
    settings = {"group_pattern": group_pattern, "cine_step": cine_step}
    return Source("class folders", root.name, rows, settings=settings)


def _compiled(group_pattern: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(group_pattern)
    except re.error as error:
        raise ValueError(f"The group pattern '{group_pattern}' is no regular expression: {error}.") from error
    if pattern.groups != 1:
        raise ValueError(f"The group pattern '{group_pattern}' must have one capture group, such as (Patient[0-9]+).")
    return pattern


def _class_folders(root: Path) -> list[tuple[str | None, Path]]:
    """The folders of the classes, each with its section where the root is split into sections."""
    folders = _folders(root)
    if not all(section_of(folder.name) for folder in folders):
        return [(None, folder) for folder in folders]
    return [(section_of(outer.name), folder) for outer in folders for folder in _folders(outer)]


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _group(inside: Path, patient: str | None, pattern: re.Pattern[str] | None) -> str | None:
    if pattern is None:
        return patient or (inside.parts[0] if len(inside.parts) > 1 else None)
    if match := pattern.search(inside.as_posix()):
        return match[1]
    raise ValueError(f"The group pattern '{pattern.pattern}' finds nothing in '{inside}'.")


def _header(image: str) -> tuple[str | None, str | None]:
    """Patient id and machine, as far as the file is DICOM and tells them."""
    with open(image, "rb") as file:
        if sniff(file.read(HEAD)) != "DICOM":
            return None, None
    try:
        from monai_fetalkd.frames.dicom import machine, patient_id
    except ImportError:
        raise FrameError(image, 'to read DICOM, run `pip install "monai-fetalkd[frames]"`') from None
    try:
        return patient_id(image), machine(image)
    except FrameError:
        return None, None  # whoever reads the frame will name it, or leave it out and count it
