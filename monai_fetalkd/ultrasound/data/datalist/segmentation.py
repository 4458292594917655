"""Images with masks in files, such as those of HC18 and of the Medical Segmentation Decathlon."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from monai_fetalkd.ultrasound.data.datalist.class_folders import FileFacts
from monai_fetalkd.ultrasound.data.datalist.images import files_in, holds_mask_beside, list_frames, stem_of, subfolders
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED, Row, Source, section_of, without

__all__ = ["holds_masks", "read_masks"]

_IMAGES = re.compile(r"images?(.*)", re.IGNORECASE)
_MASKS = re.compile(r"(?:masks?|labels?|annotations?|segmentations?)(.*)", re.IGNORECASE)
_HC18 = re.compile(r"([0-9]+)_[0-9]*HC")  # 010_HC and 010_2HC are of one examination


def holds_masks(folder: Path) -> bool:
    """Whether a folder holds masks beside images, or a folder of images and one of masks, split or not.

    Masks below folders of classes do not count: there the folder is the label.
    """
    return any(_pairs_of_folders(place) or holds_mask_beside(place) for _, place in _places(folder))


def read_masks(folder: str | os.PathLike[str], group_pattern: str | None = None) -> Source:
    """Read images and their masks: ``12_HC.png`` with ``12_HC_Annotation.png``, or ``imagesTr/a`` with ``labelsTr/a``.

    The folders may lie in ``train``, ``val`` and ``test``. Images without a mask are unlabelled. The group of an image
    is what the pattern finds in its path; else its examination where it is named as in HC18; else its patient id in the
    DICOM header, or it is one of its own.

    Args:
        folder: the folder.
        group_pattern: regular expression with one capture group.

    Returns:
        A row for each image, with the path of its mask as ``label``.

    Raises:
        ValueError: when no image has a mask, or the pattern is not understood or finds nothing in a path.
    """
    root, facts = Path(folder).absolute(), FileFacts(group_pattern, by_folder=False)
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for section, place in _places(root):
        pairs = _pairs_of_folders(place)
        if pairs:
            left_out["files beside the folders"] += files_in(place)
        for images, masks in pairs or [(place, None)]:
            found, beside, passed = list_frames(images)
            left_out += passed
            names = dict.fromkeys(row["image"] for row in found)  # a volume is one image
            if masks is not None:
                beside, passed = _masks_by_name(names, masks)
                left_out += passed
            for image in names:
                row = {"image": image, "source": root.name, "section": section or "training"} | facts.of(image, root)
                if group_pattern is None and (match := _HC18.fullmatch(stem_of(image))):
                    row["group"] = os.path.join(os.path.relpath(os.path.dirname(image), root), match[1])
                rows.append(row | ({"label": beside[image]} if image in beside else {"section": UNLABELLED}))
    sections = {row["section"] for row in rows if "label" in row}
    if not sections:
        raise ValueError(f"No image in '{root}' has a mask: masks must have the name of their image.")
    if sections == {"training"}:  # no split: whoever makes the datalist makes one
        rows = [row if row["section"] == UNLABELLED else without(row, "section") for row in rows]
    return Source(
        "images and masks",
        root.name,
        root,
        rows,
        groups_from=facts.groups_from,
        settings={"group_pattern": group_pattern},
        left_out=+left_out,
        masks=True,
    )


def _places(root: Path) -> list[tuple[str | None, Path]]:
    """The folders of the splits where there are any, else the folder itself."""
    split = [(section_of(folder.name), folder) for folder in subfolders(root)]
    return [(section, folder) for section, folder in split if section is not None] or [(None, root)]


def _pairs_of_folders(place: Path) -> list[tuple[Path, Path | None]]:
    """The folders of images, each with that of its masks; nothing where there are no masks."""
    masks = {match[1]: folder for folder in subfolders(place) if (match := _MASKS.fullmatch(folder.name))}
    images = {match[1]: folder for folder in subfolders(place) if (match := _IMAGES.fullmatch(folder.name))}
    return [(folder, masks.get(key)) for key, folder in images.items()] if masks.keys() & images.keys() else []


def _masks_by_name(images: Iterable[str], folder: Path) -> tuple[dict[str, str], Counter[str]]:
    """The masks of images in another folder, by the name of the file, and what else is there."""
    listed, beside, left_out = list_frames(folder)
    files = {stem_of(path): path for path in [row["image"] for row in listed] + list(beside.values())}
    found = {image: files[stem_of(image)] for image in images if stem_of(image) in files}
    left_out["masks without an image"] += len(files) - len(found)
    return found, left_out
