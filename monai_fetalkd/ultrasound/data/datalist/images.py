"""Image files: found by name, or all that a folder holds, with what is passed over and why."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from monai_fetalkd.ultrasound.data.datalist.rows import Row
from monai_fetalkd.ultrasound.frames import find_frames
from monai_fetalkd.ultrasound.frames.kinds import SUFFIXES

__all__ = [
    "ImageFolder",
    "Listing",
    "files_in",
    "has_image_suffix",
    "holds_mask_beside",
    "list_frames",
    "stem_of",
    "subfolders",
]

_JUNK = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}  # what other programs leave in folders
_MASK = re.compile(r"(.+)[_-](?:annotation|mask|seg|segmentation|label|labels|gt)(?:[_-]?[0-9]+)?", re.IGNORECASE)
_PIXELS_OF = {".raw": ".mhd", ".zraw": ".mhd", ".img": ".hdr"}  # files that belong to the header beside them


class ImageFolder:
    """Finds images by name: with or without extension, with a backslash for ``/``, in other case or Unicode form.

    Args:
        folder: the folder that the names are relative to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.abspath(folder)
        self._names = cache(_names)

    def find(self, name: str, suffix: str = "") -> str:
        """The path of an image; that of a file that does not exist where there is none.

        Args:
            name: path in the folder.
            suffix: extension to try first.

        Raises:
            ValueError: when several files fit the name equally well.
        """
        for candidate in (name + suffix, name, name.replace("\\", "/")):
            path = os.path.normpath(os.path.join(self.folder, candidate))
            if os.path.isfile(path):
                return path
        return self._find_alike(path) or path

    def _find_alike(self, path: str) -> str | None:
        """The file or folder of this path, whatever the case, the Unicode form and the extension of its name."""
        folder, name = os.path.split(path)
        if not os.path.isdir(folder) and not (name and (folder := self._find_alike(folder) or "")):
            return None
        names = self._names(folder)
        found = names.get(_alike(name)) or []
        if len(found) > 1:
            raise ValueError(f"The image '{name}' may be {' or '.join(found)}: give it with its extension, as written.")
        return os.path.join(folder, found[0]) if found else None


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _names(folder: str) -> dict[str, list[str]]:
    """The entries of a folder by their names in one form, and by these without extension where no entry has them."""
    whole, stems = defaultdict(list), defaultdict(list)
    for name in sorted(os.listdir(folder)):
        whole[_alike(name)].append(name)
        stems[_alike(stem_of(name))].append(name)
    return stems | whole


def stem_of(name: str) -> str:
    """The name of a file without its extension, ``.nii.gz`` included."""
    name = os.path.basename(name)
    return name[:-7] if name.lower().endswith(".nii.gz") else os.path.splitext(name)[0]


def has_image_suffix(name: str) -> bool:
    """Whether the name of a file ends as that of a picture, of DICOM or of a volume does."""
    return name.lower().endswith(tuple(SUFFIXES))


class Listing(NamedTuple):
    """What a folder and the folders in it hold.

    Args:
        rows: ``image`` and, in a file of several, ``frame`` of every frame that is no mask.
        masks: the path of the mask of an image, where one lies beside it.
        left_out: the number of files that are neither, by what they are.
    """

    rows: list[Row]
    masks: dict[str, str]
    left_out: Counter[str]


def list_frames(folder: Path) -> Listing:
    """List the frames of a folder, and count what is passed over.

    A mask is a file beside an image with its name and a word for it, such as ``12_HC_Annotation.png`` beside
    ``12_HC.png``.
    """
    rows = find_frames(folder)
    stems = {os.path.join(os.path.dirname(row["image"]), stem_of(row["image"])): row["image"] for row in rows}
    images = {row["image"] for row in rows}
    masks: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    of_mask = {mask: stems[stem] for mask in images if (stem := _image_of(mask)) in stems}
    for mask, image in sorted(of_mask.items()):
        if image in masks:
            left_out["further masks of an image that has one"] += 1
        masks.setdefault(image, mask)
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_dir() or str(path) in images or any(part.startswith(".") or part in _JUNK for part in inside):
            continue
        suffix = path.suffix.lower()
        if suffix in _PIXELS_OF and path.with_suffix(_PIXELS_OF[suffix]).is_file():
            continue
        left_out[f"files that are no frames ({suffix})" if suffix else "files that are no frames (no extension)"] += 1
    return Listing([row for row in rows if row["image"] not in of_mask], masks, left_out)


def holds_mask_beside(folder: Path) -> bool:
    """Whether a file in a folder itself is the mask of another one there."""
    files = [name for name in os.listdir(folder) if has_image_suffix(name)]
    stems = set(map(stem_of, files))
    return any(match[1] in stems for stem in stems if (match := _MASK.fullmatch(stem)))


def _image_of(mask: str) -> str:
    match = _MASK.fullmatch(stem_of(mask))
    return os.path.join(os.path.dirname(mask), match[1]) if match else ""


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that are neither hidden nor what an archive or another program left there."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_junk(path.name))


def files_in(folder: Path) -> int:
    """The number of files that lie in a folder itself."""
    return sum(not path.is_dir() and not _is_junk(path.name) for path in folder.iterdir())


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK
