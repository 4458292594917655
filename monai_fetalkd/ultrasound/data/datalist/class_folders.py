"""A folder per class: pictures, or DICOM from the machine."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from monai_fetalkd.ultrasound.data.datalist.images import Listing, files_in, list_frames, subfolders
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED, Row, Source, section_of, text_of
from monai_fetalkd.ultrasound.frames import FrameError
from monai_fetalkd.ultrasound.frames.kinds import HEAD, sniff
from monai_fetalkd.utils.requirements import pip_install

__all__ = ["FileFacts", "read_class_folders"]

_FOLDER = "the folder below that of the class"


def read_class_folders(folder: str | os.PathLike[str], group_pattern: str | None = None, cine_step: int = 1) -> Source:
    """Read every frame under ``<folder>/<class>/``, or under ``<folder>/train/<class>/`` and so on.

    A folder ``unlabelled`` beside the classes, or beside ``train``, holds frames without labels. Masks that lie beside
    their images are left out, as is whatever lies outside of these folders.

    Args:
        folder: the folder of the classes, or of ``train``, ``val`` and ``test``.
        group_pattern: regular expression with one capture group that finds the group (patient) of a frame, see
            :class:`FileFacts`.
        cine_step: take each n-th frame of a file of several.

    Returns:
        Its frames.

    Raises:
        FileNotFoundError: when there is no frame below any folder of the folder.
        ValueError: when the folders are not understood, the pattern is not understood or finds nothing in a path, or
            the step is below 1.
    """
    root = Path(folder).absolute()
    facts = FileFacts(group_pattern)
    if cine_step < 1:
        raise ValueError(f"cine_step must be 1 or more, got {cine_step}.")
    rows: list[Row] = []
    listings, left_out = _class_folders(root)
    for section, class_folder, listing in listings:
        known: Row = {"source": root.name}
        if section is not None:
            known["section"] = section
        if section != UNLABELLED:
            known["label"] = text_of(class_folder.name)
            if known["label"] is None:
                raise ValueError(f"The name of the folder '{class_folder}' stands for no value: rename it to a class.")
        taken = [row for row in listing.rows if row.get("frame", 0) % cine_step == 0]
        rows += [row | known | facts.of(row["image"], class_folder) for row in taken]
        left_out += listing.left_out
        left_out["folders without a frame"] += not listing.rows
        if listing.masks:
            left_out["masks beside their images"] += len(listing.masks)
    if not rows:
        raise FileNotFoundError(
            f"There is no 'datalist.json' in the folder '{root}', nor any frame in a folder for each class: add one or "
            "the other, or give the path of a datalist (JSON or CSV)."
        )
    settings = {"group_pattern": group_pattern, "cine_step": cine_step}
    return Source(
        "class folders", root.name, root, rows, groups_from=facts.groups_from, settings=settings, left_out=+left_out
    )


class FileFacts:
    """What the name and the header of a file tell of the patient and the machine.

    The group is what the pattern finds in the path; else the patient id of a DICOM header; else the first folder below
    the folder given (``<class>/<patient>/frame.png``).

    Args:
        group_pattern: regular expression with one capture group.
        by_folder: whether inner folders are patients.

    Raises:
        ValueError: when the pattern is no such expression.
    """

    def __init__(self, group_pattern: str | None = None, by_folder: bool = True) -> None:
        self._pattern = _compiled(group_pattern) if group_pattern is not None else None
        self._by_folder = by_folder
        self._known: dict[str, Row] = {}  # by file, as a cine has many frames and one header
        self._asked: Counter[str] = Counter()

    @property
    def groups_from(self) -> str:
        """Where the groups of the files asked for came from, for messages."""
        if self._pattern is not None:
            return f"the group pattern '{self._pattern.pattern}'"
        found = [f"{place} ({count} files)" for place, count in self._asked.items()]
        return " and ".join(found) or "the patient id in the DICOM header" + self._by_folder * f", {_FOLDER}"

    def of(self, image: str, folder: Path) -> Row:
        """``group`` and ``machine`` of a file, as far as they are known.

        Args:
            image: path of the file.
            folder: the folder that its path is taken from.

        Raises:
            ValueError: when the pattern finds nothing in the path.
        """
        if image not in self._known:
            patient, machine = _header(image)
            facts = {"group": self._group(Path(os.path.relpath(image, folder)), patient), "machine": machine}
            self._known[image] = {key: value for key, value in facts.items() if value is not None}
        return self._known[image]

    def _group(self, inside: Path, patient: str | None) -> str | None:
        if self._pattern is not None:
            if match := self._pattern.search(inside.as_posix()):
                return text_of(match[1])
            raise ValueError(f"The group pattern '{self._pattern.pattern}' finds nothing in '{inside}'.")
        if patient is not None:
            self._asked["the patient id in the DICOM header"] += 1
            return patient
        if self._by_folder and len(inside.parts) > 1:
            self._asked[_FOLDER] += 1
            return text_of(inside.parts[0])
        return None


def _compiled(group_pattern: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(group_pattern)
    except re.error as error:
        raise ValueError(f"The group pattern '{group_pattern}' is no regular expression: {error}.") from error
    if pattern.groups != 1:
        raise ValueError(f"The group pattern '{group_pattern}' must have one capture group, such as (Patient[0-9]+).")
    return pattern


def _class_folders(root: Path) -> tuple[list[tuple[str | None, Path, Listing]], Counter[str]]:
    """The folders of the classes, each with its section where the root is split into sections; what is left out."""
    outer = [(section_of(folder.name), folder) for folder in subfolders(root)]
    split = [(section, folder) for section, folder in outer if section not in (None, UNLABELLED)]
    listed = [(section, folder, list_frames(folder)) for section, folder in outer if section in (None, UNLABELLED)]
    left_out = Counter({"files beside the folders": files_in(root)})
    if not split:
        return listed, +left_out
    strangers = {folder.name: len(listing.rows) for section, folder, listing in listed if section is None}
    strangers = {name: count for name, count in strangers.items() if count}
    if strangers and "training" not in dict(split):
        raise ValueError(
            f"'{root}' has the folder '{split[0][1].name}', named as a split, beside '{min(strangers)}', which is not: "
            "give the folder of the splits or that of the classes, or rename one."
        )
    for section, _, listing in listed:
        if section is None:
            left_out += listing.left_out
    for name, count in strangers.items():
        left_out[f"frames in the folder '{name}', which is no split"] += count
    listed = [each for each in listed if each[0] == UNLABELLED]
    for section, folder in split:
        classes = subfolders(folder)
        if not classes and files_in(folder):
            raise ValueError(
                f"The folder '{folder}' is named as a split but holds no folder for each class: sort its frames into "
                "such folders, or give a table or, for segmentation, the masks beside the images."
            )
        left_out["files beside the folders"] += files_in(folder)
        listed += [(section, each, list_frames(each)) for each in classes]
    return listed, +left_out


def _header(image: str) -> tuple[str | None, str | None]:
    """Patient id and machine, as far as the file is DICOM and tells them."""
    if not os.path.isfile(image):
        return None, None
    with open(image, "rb") as file:
        if sniff(file.read(HEAD)) != "DICOM":
            return None, None
    try:
        from monai_fetalkd.ultrasound.frames.dicom import machine, patient_id
    except ModuleNotFoundError:
        raise FrameError(image, f"to read DICOM, run `{pip_install('pydicom')}`") from None
    try:
        return text_of(patient_id(image)), text_of(machine(image))
    except FrameError:
        return None, None  # whoever reads the frame will name it, or leave it out and count it
