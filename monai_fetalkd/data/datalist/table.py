"""Tables of frames: CSV or TSV, one row a frame."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from itertools import zip_longest
from pathlib import Path

from monai_fetalkd.data.datalist.rows import Row, Source, section_of

__all__ = ["ImageFolder", "read_table", "sha256_of", "table_cells"]

logger = logging.getLogger(__name__)

# what a column may hold, and the names under which it is looked for
_COLUMNS = {
    "image": ("image",),
    "label": ("label",),
    "group": ("group_id", "group", "patient_id"),
    "source": ("dataset", "source"),
    "split": ("split",),
    "frame": ("frame",),
    "machine": ("machine",),
    "operator": ("operator",),
}


def read_table(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] | None = None,
) -> Source:
    r"""Read the frames that a table lists.

    The cells are parted by comma, semicolon or tab. Columns without a meaning here are dropped: they may hold names.

    Args:
        path: the table, in UTF-8, with a header.
        columns: names of columns by meaning (``image``, ``label``, ``group``, ``source``, ``split``, ``frame``,
            ``machine``, ``operator``). Those not given are looked for under their own names, the group as ``group_id``,
            ``group`` or ``patient_id``, the source as ``dataset`` or ``source``. All but image and label may be absent.
        images: the folder that image paths are relative to; the folder of the table by default. An image may be given
            without the extension of its file.

    Returns:
        Its frames.

    Raises:
        ValueError: when a column is absent, a cell is empty or not understood, or the file is no table.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "planes.tsv"
        >>> _ = path.write_text("image\tlabel\tpatient_id\na.png\tbrain\t17\n")
        >>> row, = read_table(path).rows
        >>> row["label"], row["group"]
        ('brain', '17')
    """
    path = Path(path)
    header, lines = table_cells(path)
    names = _named_columns(path, header, columns or {})
    if "group" not in names:
        logger.warning("'%s' has no column of groups (patients): each frame is taken for a group of its own.", path)
    folder = ImageFolder(path.parent if images is None else images)
    rows = [
        _row({meaning: cells[name] for meaning, name in names.items()}, f"'{path}', line {number}", path.stem, folder)
        for number, cells in lines
    ]
    return Source("table", path.name, rows, record={"sha256": sha256_of(path)}, settings={"columns": names})


def table_cells(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a table, and its rows as (line number, cells by column), without blanks around them.

    Raises:
        ValueError: when the file is no table in UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"The table '{path}' cannot be read: save it as CSV in UTF-8 ({error}).") from error
    # a line may be shorter than the header, where its last cells are empty
    return header, [(number, dict(zip_longest(header, cells[: len(header)], fillvalue=""))) for number, cells in lines]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ImageFolder:
    """Finds images by name, with or without the extension of the file.

    Args:
        folder: the folder that the names are relative to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).absolute()
        self._files_by_stem = cache(_files_by_stem)

    def find(self, name: str, suffix: str = "") -> str:
        """The path of an image; that of a file that does not exist where there is none.

        Args:
            name: path in the folder.
            suffix: extension to try first.

        Raises:
            ValueError: when the name has no extension and several files have this name.
        """
        path = os.path.join(self.folder, name + suffix)
        if os.path.isfile(path):
            return path
        folder, stem = os.path.split(os.path.join(self.folder, name))
        files = self._files_by_stem(folder).get(stem, [])
        if len(files) > 1:
            raise ValueError(f"The image '{name}' may be {' or '.join(sorted(files))}: give it with its extension.")
        return os.path.join(folder, files[0]) if files else path


def _files_by_stem(folder: str) -> dict[str, list[str]]:
    files = defaultdict(list)
    if os.path.isdir(folder):
        for file in os.listdir(folder):
            files[os.path.splitext(file)[0]].append(file)
    return files


def _named_columns(path: Path, header: list[str], given: Mapping[str, str]) -> dict[str, str]:
    if unknown := given.keys() - _COLUMNS.keys():
        raise ValueError(
            f"A table has no meaning '{min(unknown)}' for a column: the meanings are {', '.join(_COLUMNS)}."
        )
    names = {}
    for meaning, candidates in _COLUMNS.items():
        wanted = (given[meaning],) if meaning in given else candidates
        if found := [name for name in wanted if name in header]:
            names[meaning] = found[0]
        elif meaning in given or meaning in ("image", "label"):
            raise ValueError(f"The table '{path}' has no column {wanted[0]} (it has {', '.join(header) or 'none'}).")
    return names


def _row(cells: dict[str, str], where: str, source: str, folder: ImageFolder) -> Row:
    if absent := [meaning for meaning in ("image", "label", "group") if cells.get(meaning) == ""]:
        raise ValueError(f"{where}: the {absent[0]} is empty.")
    row: Row = {
        "image": folder.find(cells["image"]),
        "label": cells["label"],
        "group": cells.get("group", cells["image"]),
        "source": cells.get("source") or source,
    }
    if "split" in cells:
        row["section"] = section_of(cells["split"])
        if row["section"] is None:
            raise ValueError(f"{where}: split '{cells['split']}' is none of train, val, test.")
    if frame := cells.get("frame"):
        if not frame.isdecimal():
            raise ValueError(f"{where}: frame '{frame}' is no number from 0.")
        row["frame"] = int(frame)
    return row | {meaning: cells[meaning] for meaning in ("machine", "operator") if cells.get(meaning)}
