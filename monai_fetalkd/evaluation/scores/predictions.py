"""What one network says of each frame of a split: a validated table, and its CSV file."""

from __future__ import annotations

import csv
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_fetalkd.utils.files import written_whole

from .checks import RowError, check_frames, check_shapes

__all__ = ["Predictions", "read_predictions"]

_COLUMNS = ["file", "group", "source", "machine", "label"]

# above the rounding of a row once divided, so that a table is read as it was written
_SUM_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Predictions:
    """The probabilities that one network gives to the frames of a split, beside what is known of these frames.

    Rows whose sum differs from one by no more than 1e-4, as that of a softmax in float32 does, are divided by it.

    Args:
        class_names: names of the classes, in the order of the columns of ``probabilities``; two at least.
        files: path of each frame as in the datalist, ``"#<n>"`` appended for frame n of a cine; each once.
        labels: index of each frame's class, integers ``[N]``.
        probabilities: ``[N, C]``, finite, not negative, each row summing to one.
        groups: patient of each frame, or whatever else a bootstrap has to draw as one.
        sources: hospital or dataset of each frame, "" where unknown.
        machines: ultrasound machine of each frame, "" where unknown.

    Raises:
        ValueError: when a column is not as described; it names the frame and the class.

    Example:
        >>> rows = [{"image": "a.png", "label": 0, "group": "p1"}, {"image": "b.png", "label": 1, "group": "p2"}]
        >>> predictions = Predictions.from_rows(("brain", "other"), rows, [[0.9, 0.1], [0.6, 0.4]])
        >>> predictions.classes.tolist(), predictions.labels.tolist()
        ([0, 0], [0, 1])
        >>> predictions.take([1, 1]).files
        ('b.png', 'b.png')
    """

    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    machines: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("class_names", "files", "groups", "sources", "machines"):
            self._set(name, tuple(getattr(self, name)))
        labels = np.asarray(self.labels)
        probabilities = np.array(self.probabilities, dtype=np.float64)
        known = {"groups": self.groups, "sources": self.sources, "machines": self.machines}
        check_shapes(self.class_names, self.files, labels, probabilities, known)
        check_frames(self.class_names, self.files, self.groups, labels, probabilities)
        sums = probabilities.sum(axis=1, keepdims=True)
        np.divide(probabilities, sums, out=probabilities, where=np.abs(sums - 1) > _SUM_ROUNDING)
        self._set("labels", labels.astype(np.int64))
        self._set("probabilities", np.minimum(probabilities, 1))

    @classmethod
    def from_rows(
        cls, class_names: Sequence[str], rows: Sequence[Mapping[str, Any]], probabilities: ArrayLike
    ) -> Predictions:
        """The table of the rows of a datalist and what a network says of them.

        Args:
            class_names: names of the classes, in the order of the columns of ``probabilities``.
            rows: of each frame ``image``, ``label``, and ``frame``, ``group``, ``source``, ``machine`` where there are
                any. A file without a group is a group of its own.
            probabilities: ``[N, C]``, in the order of ``rows``.

        Returns:
            The table.

        Raises:
            ValueError: when a row has no label, or the table is not valid.
        """
        return cls(
            class_names=tuple(class_names),
            files=tuple(_file(row) for row in rows),
            labels=np.array([_label(row) for row in rows], dtype=np.int64),
            probabilities=np.asarray(probabilities),
            groups=tuple(_text(row, "group") or str(row["image"]) for row in rows),
            sources=tuple(_text(row, "source") for row in rows),
            machines=tuple(_text(row, "machine") for row in rows),
        )

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> NDArray[np.int64]:
        """Index of the class that the network decides for, ``[N]``: the first of the most probable ones."""
        return self.probabilities.argmax(axis=1)

    def take(self, indices: ArrayLike) -> Predictions:
        """The frames at these positions, which may repeat: a bootstrap resample, or the frames of one source.

        Cheap, since frames of a valid table need no second look.

        Args:
            indices: positions ``[M]``, or a mask ``[N]``.

        Returns:
            A table of these frames.

        Raises:
            ValueError: when there is none.
        """
        positions = np.arange(len(self))[np.asarray(indices)]
        if not len(positions):
            raise ValueError("No frame is taken: an empty table cannot be scored.")
        order = positions.tolist()
        taken = object.__new__(Predictions)
        taken._set("class_names", self.class_names)
        for name in ("labels", "probabilities"):
            taken._set(name, getattr(self, name)[positions])
        for name in ("files", "groups", "sources", "machines"):
            taken._set(name, tuple(map(getattr(self, name).__getitem__, order)))
        return taken

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table as CSV, whole or not at all; an older file is replaced.

        The columns are ``file``, ``group``, ``source``, ``machine``, ``label`` (the name of the class), then the
        probabilities, one column headed by each class. Reading it gives the same numbers to the last bit.

        Args:
            path: the file to write.
        """
        names = (self.class_names[label] for label in self.labels)
        known = zip(self.files, self.groups, self.sources, self.machines, names, strict=True)
        with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*_COLUMNS, *self.class_names])
            writer.writerows([*frame, *row] for frame, row in zip(known, self.probabilities.tolist(), strict=True))

    def _set(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
        object.__setattr__(self, name, value)


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read the CSV file that :meth:`Predictions.write` writes.

    Group, source and machine may be empty; a file without a group is a group of its own.

    Args:
        path: the file to read.

    Returns:
        The table.

    Raises:
        ValueError: when it is not such a file; it names the file, the line and the column.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "student.csv"
        >>> rows = [{"image": "a.png", "label": 0, "group": "p1"}]
        >>> Predictions.from_rows(("brain", "other"), rows, [[0.75, 0.25]]).write(path)
        >>> print(path.read_text().rstrip())
        file,group,source,machine,label,brain,other
        a.png,p1,,,brain,0.75,0.25
        >>> read_predictions(path).probabilities
        array([[0.75, 0.25]])
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"'{path}' is no CSV file in UTF-8: {error}.") from error
    if header[: len(_COLUMNS)] != _COLUMNS:
        raise ValueError(
            f"'{path}', line 1: the columns have to begin with {','.join(_COLUMNS)}, followed by one for each class, "
            f"but they are {','.join(header) or 'missing'}."
        )
    classes = header[len(_COLUMNS) :]
    rows = [_read_row(classes, cells, f"'{path}', line {line}") for line, cells in lines]
    probabilities = np.array([row["probabilities"] for row in rows]).reshape(len(rows), len(classes))
    try:
        return Predictions.from_rows(classes, rows, probabilities)
    except RowError as error:
        raise ValueError(f"'{path}', line {lines[error.position][0]}: {error}") from error
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error


def _read_row(classes: list[str], cells: list[str], where: str) -> dict[str, Any]:
    columns = len(_COLUMNS) + len(classes)
    if len(cells) != columns:
        raise ValueError(f"{where}: there are {columns} columns, but {len(cells)} values.")
    known = dict(zip(_COLUMNS, cells[: len(_COLUMNS)], strict=True))
    if not known["label"]:
        raise ValueError(f"{where}, column 'label': the label of '{known['file']}' is missing.")
    if known["label"] not in classes:
        raise ValueError(f"{where}, column 'label': '{known['label']}' is none of the classes {', '.join(classes)}.")
    probabilities = []
    for name, cell in zip(classes, cells[len(_COLUMNS) :], strict=True):
        try:
            probabilities.append(float(cell))
        except ValueError:
            raise ValueError(f"{where}, column '{name}': '{cell}' is no number.") from None
    return {**known, "image": known["file"], "label": classes.index(known["label"]), "probabilities": probabilities}


def _file(row: Mapping[str, Any]) -> str:
    return str(row["image"]) if row.get("frame") is None else f"{row['image']}#{row['frame']}"


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value)


def _label(row: Mapping[str, Any]) -> int:
    if row.get("label") is None:
        raise ValueError(f"The label of '{_file(row)}' is missing: only frames with a label can be scored.")
    try:
        return operator.index(row["label"])
    except TypeError:
        raise ValueError(f"The label of '{_file(row)}' is {row['label']!r}, not the index of a class.") from None
