"""Tables of frames: CSV or TSV, one row a frame."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from monai_fetalkd.ultrasound.data.datalist.images import ImageFolder, has_image_suffix
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED, Row, Source, name_key, section_of, text_of

__all__ = ["Table", "read_table", "sha256_of"]

# what a column may hold, and the names under which it is looked for
_COLUMNS = {
    "image": ("image",),
    "label": ("label",),
    "mask": ("mask",),
    "group": ("group_id", "group", "patient_id", "exam_id"),
    "source": ("dataset", "source"),
    "split": ("split",),
    "frame": ("frame",),
    "machine": ("machine",),
    "operator": ("operator",),
}
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?')  # written for Excel, which reads no other separator than its own


class Table(NamedTuple):
    """The cells of a table as text, without blanks around them.

    Args:
        header: the names of the columns.
        lines: number of the line and cells by column, of each row that is not empty.
        empty: the number of empty rows.
    """

    header: list[str]
    lines: list[tuple[int, dict[str, str]]]
    empty: int

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a table as spreadsheets write it: in UTF-8 or UTF-16, with a first line ``sep=;`` or without.

        Raises:
            ValueError: when the file is no table in UTF-8, or a row has more cells than there are columns.
        """
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        try:
            stream = io.StringIO(content.decode("utf-16" if utf16 else "utf-8-sig"), newline="")
            first = stream.readline()
            if said := _SEPARATOR_LINE.fullmatch(first.strip("\r\n")):
                delimiter, before = said[1], 1
            else:
                delimiter, before = max(",;\t", key=first.count), 0
                stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter, strict=True)  # else an open quote swallows what follows
            header = [name.strip() for name in next(reader, [])]
            rows = [(before + reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except UnicodeDecodeError as error:
            raise ValueError(f"The table '{path}' cannot be read: save it as CSV in UTF-8 ({error}).") from error
        except csv.Error as error:
            raise ValueError(f"The table '{path}' cannot be read, near line {reader.line_num}: {error}.") from error
        if any("\0" in cell for cells in (header, *(cells for _, cells in rows)) for cell in cells):
            raise ValueError(f"'{path}' is no table of text: save it as CSV in UTF-8.")
        full = [(number, cells) for number, cells in rows if any(cells)]
        for number, cells in full:
            if any(cells[len(header) :]):
                raise ValueError(
                    f"'{path}', line {number}: there are {len(cells)} cells for {len(header)} columns; put cells that "
                    f"hold a '{delimiter}' in quotes."
                )
        # a line may be shorter than the header, where its last cells are empty
        blank = dict.fromkeys(header, "")
        return cls(
            header,
            [(number, blank | dict(zip(header, cells, strict=False))) for number, cells in full],
            len(rows) - len(full),
        )


def read_table(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] | None = None,
    labelled: bool = True,
) -> Source:
    r"""Read the frames that a table lists.

    The cells are parted by comma, semicolon or tab. Columns without a meaning here are dropped: they may hold names.
    Where a table has masks but no labels, or labels that are image files, its frames are for segmentation.

    Args:
        path: the table, in UTF-8 or UTF-16, with a header.
        columns: names of columns by meaning (``image``, ``label``, ``mask``, ``group``, ``source``, ``split``,
            ``frame``, ``machine``, ``operator``). Those not given are looked for under their own names, the group as
            ``group_id``, ``group``, ``patient_id`` or ``exam_id``, the source as ``dataset`` or ``source``. All but the
            image and the label (or mask) may be absent.
        images: the folder that image paths are relative to; the folder of the table by default. An image may be given
            without the extension of its file.
        labelled: whether the frames have labels; without, labels and split are not read.

    Returns:
        Its frames. Those of the split ``unlabelled`` need no label.

    Raises:
        ValueError: when a column is absent or there twice, a cell is empty or not understood, or the file is no table.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "planes.tsv"
        >>> _ = path.write_text("image\tlabel\tpatient_id\na.png\tbrain\t17\n")
        >>> row, = read_table(path).rows
        >>> row["label"], row["group"]
        ('brain', '17')
    """
    path = Path(path)
    table = Table.read(path)
    names = _named_columns(path, table.header, columns or {}, labelled)
    masks = "label" not in names or _are_files(cells[names["label"]] for _, cells in table.lines)
    if "mask" in names:
        names = {"image": names["image"], "label": names.pop("mask"), **names}
    folder = ImageFolder(path.parent if images is None else images)
    rows = []
    for number, cells in table.lines:
        row = _row({meaning: cells[name] for meaning, name in names.items()}, f"'{path}', line {number}")
        row = {"source": path.stem} | row | {"image": folder.find(row["image"])}
        if masks and "label" in row:
            row["label"] = folder.find(row["label"])
        rows.append(row)
    return Source(
        "table",
        path.name,
        path.absolute().parent,
        rows,
        groups_from=f"the column '{names['group']}'" if "group" in names else "a column group_id, group or patient_id",
        record={"sha256": sha256_of(path)},
        settings={"columns": names},
        left_out={"empty rows": table.empty} if table.empty else {},
        masks=masks,
    )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _named_columns(path: Path, header: list[str], given: Mapping[str, str], labelled: bool) -> dict[str, str]:
    if unknown := given.keys() - _COLUMNS.keys():
        raise ValueError(
            f"A table has no meaning '{min(unknown)}' for a column: the meanings are {', '.join(_COLUMNS)}."
        )
    meanings = [meaning for meaning in _COLUMNS if labelled or meaning not in ("label", "mask", "split")]
    names = {}
    for meaning in meanings:
        wanted = (given[meaning],) if meaning in given else _COLUMNS[meaning]
        if name := next(filter(None, (_column(path, header, name) for name in wanted)), None):
            names[meaning] = name
        elif meaning in given or meaning == "image":
            raise ValueError(f"The table '{path}' has no column {wanted[0]} (it has {', '.join(header) or 'none'}).")
    if labelled and not names.keys() & {"label", "mask"}:
        raise ValueError(
            f"The table '{path}' has no column label (it has {', '.join(header)}): name the column of the classes, or "
            "that of the masks for segmentation (label_column, mask_column)."
        )
    # a class beside a mask decides, unless the masks are asked for
    names.pop("label" if "mask" in given else "mask" if "label" in names else "", None)
    return names


def _column(path: Path, header: list[str], wanted: str) -> str | None:
    """The column of a name, by the exact name or else by what has the same :func:`name_key`."""
    found = [name for name in header if name == wanted] or [
        name for name in header if name_key(name) == name_key(wanted)
    ]
    if len(found) > 1:
        raise ValueError(
            f"The table '{path}' has {len(found)} columns for '{wanted}' ({', '.join(found)}): rename or delete all "
            "but one."
        )
    return found[0] if found else None


def _are_files(labels: Iterable[str]) -> bool:
    """Whether labels are image files; empty ones, of unlabelled frames, do not count."""
    given = [label for label in labels if label]
    return bool(given) and all(map(has_image_suffix, given))


def _row(cells: dict[str, str], where: str) -> Row:
    values = {meaning: text_of(cell) for meaning, cell in cells.items()}
    row: Row = {meaning: value for meaning, value in values.items() if value is not None}
    if "split" in values:
        row["section"] = section_of(row.pop("split", ""))
        if row["section"] is None:
            raise ValueError(f"{where}: split '{cells['split']}' is none of train, val, test, unlabelled.")
    for meaning in ("image", "label", "group"):
        if values.get(meaning, "") is None and not (meaning == "label" and row.get("section") == UNLABELLED):
            said = f"'{cells[meaning]}', which stands for no value" if cells[meaning] else "empty"
            raise ValueError(f"{where}: the {meaning} is {said}; give it, or take the row out.")
    if row.get("section") == UNLABELLED:
        row.pop("label", None)
    if frame := row.get("frame"):
        if not re.fullmatch(r"[0-9]+(\.0*)?", frame):
            raise ValueError(f"{where}: frame '{frame}' is no number from 0.")
        row["frame"] = int(float(frame))
    return row
