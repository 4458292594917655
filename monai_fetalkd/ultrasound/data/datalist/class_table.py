"""Class names and their labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from monai_fetalkd.ultrasound.data.datalist.rows import Source, name_key

__all__ = ["ClassTable", "table_of"]

# pandas writes integers as "1.0" where other rows of the column are empty
_NUMBER = re.compile(r"([0-9]+)(?:\.0*)?|[-+]?[0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?", re.ASCII | re.IGNORECASE)


class ClassTable:
    """The classes of a task in the order of their labels.

    Names match whatever their case, blanks, ``_``, ``-`` and Unicode form: the folder ``fetal_brain`` holds the class
    "Fetal brain".

    Args:
        names: the class names; the label of a name is its position.

    Raises:
        ValueError: when two names match each other.

    Example:
        >>> table = ClassTable(["Fetal abdomen", "Fetal brain"])
        >>> table.label("fetal_brain"), table.label("0"), table.label("heart")
        (1, 0, None)
        >>> str(table)
        '0 Fetal abdomen, 1 Fetal brain'
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._labels = {name_key(name): label for label, name in enumerate(self.names)}
        if len(self._labels) < len(self.names):
            raise ValueError(f"The class names must be different from each other: got {', '.join(self.names)}.")

    @classmethod
    def found(cls, values: Iterable[Any]) -> ClassTable:
        """The table of the names that occur among labels, in alphabetical order.

        Raises:
            ValueError: when a label is a number, which has no name.
        """
        names: dict[str, str] = {}
        for value in values:
            if not isinstance(value, str) or _NUMBER.fullmatch(value):
                raise ValueError(f"The label {value!r} is a number: say what its classes are called (class_names).")
            names.setdefault(name_key(value), value)
        return cls(sorted(names.values(), key=name_key))

    def label(self, value: Any) -> int | None:
        """The label of a class name, of an integer or of its digits; ``None`` when it is outside the table."""
        if isinstance(value, str):
            if name_key(value) in self._labels:
                return self._labels[name_key(value)]
            match = _NUMBER.fullmatch(value)
            value = int(match[1]) if match and match[1] else None
        inside = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.names)
        return value if inside else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassTable) and self._labels == other._labels

    def __str__(self) -> str:
        return ", ".join(f"{label} {name}" for label, name in enumerate(self.names))

    __hash__ = None  # type: ignore[assignment]


def table_of(source: Source, class_names: Sequence[str] | None, path: Path) -> ClassTable:
    """The class table of a source.

    Args:
        source: the source.
        class_names: the table that is asked for; None is that of the source, else of the names found in it.
        path: where it was read from, for messages.

    Raises:
        ValueError: when the source has another table than that asked for, one class alone, or numbers without names.
    """
    if class_names is None:
        if source.class_names is not None:
            return ClassTable(source.class_names)
        if source.masks:
            return ClassTable([])
        table = ClassTable.found(row["label"] for row in source.rows if "label" in row)
        if len(table.names) == 1:
            inner = f" ('{source.root / table.names[0]}')" if source.kind == "class folders" else ""
            if source.kind == "class folders" and (tables := sorted(source.root.glob("*.[ct]sv"))):
                inner += f" or the table '{tables[0]}'"
            raise ValueError(
                f"'{path}' holds one class alone, '{table.names[0]}', so there is nothing to tell apart: if a folder "
                f"lies around the data set, give the one in it{inner}; if other classes lie elsewhere, name them all "
                "(classes, class_names)."
            )
        return table
    table = ClassTable(class_names)
    if source.class_names is not None and table != (own := ClassTable(source.class_names)):
        raise ValueError(
            f"The classes of '{path}' ({own}) are not those asked for ({table}): ask for its own, in their order "
            f'(in a run of the bundle, --class_names "{own.names}"), or give another dataset.'
        )
    return table
