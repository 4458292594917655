"""From whatever a user holds to a datalist."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_fetalkd import __version__
from monai_fetalkd.data.datalist.arrange import arrange
from monai_fetalkd.data.datalist.class_folders import read_class_folders
from monai_fetalkd.data.datalist.class_table import ClassTable
from monai_fetalkd.data.datalist.datalist import Datalist
from monai_fetalkd.data.datalist.fetal_planes_db import TABLE, read_fetal_planes_db
from monai_fetalkd.data.datalist.json_datalist import read_json_datalist
from monai_fetalkd.data.datalist.privacy import Pseudonyms
from monai_fetalkd.data.datalist.rows import Row, Source
from monai_fetalkd.data.datalist.table import read_table

__all__ = ["load_datalist", "read_source"]

logger = logging.getLogger(__name__)

_IDENTIFYING = ("group", "operator")
_OPTIONS: dict[Callable[..., Source], set[str]] = {
    read_json_datalist: set(),
    read_fetal_planes_db: {"task"},
    read_table: {"columns", "images"},
    read_class_folders: {"group_pattern", "cine_step"},
}


def load_datalist(
    path: str | os.PathLike[str], class_names: Sequence[str], *, fold: int | None = None, **options: Any
) -> Datalist:
    r"""Read the frames of a task for training or evaluation, and refuse what would make its figures worthless.

    Args:
        path: what holds the frames, see :func:`read_source`.
        class_names: the class table; the label of a name is its position.
        fold: of a datalist with folds, the one to validate on; the others are for training.
        options: those of :func:`read_source`.

    Returns:
        The datalist; its method ``section`` gives the frames of ``"training"``, ``"validation"`` or ``"testing"``.

    Raises:
        FileNotFoundError: when the source or an image is not there.
        ValueError: when it cannot be read, a label is outside the class table, or a group is in more than one section.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.png").touch()
        >>> _ = (folder / "planes.csv").write_text("image,label,patient_id,split\na.png,brain,17,test\n")
        >>> frame, = load_datalist(folder / "planes.csv", ["abdomen", "brain"]).section("testing")
        >>> frame["label"]
        1
    """
    datalist = read_source(path, class_names, **options)
    if fold is not None:
        datalist = datalist.with_fold(fold)
    datalist.require_groups_apart()
    return datalist


def read_source(
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    *,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] | None = None,
    group_pattern: str | None = None,
    cine_step: int | None = None,
    val: float = 0.15,
    test: float = 0.2,
    folds: int | None = None,
    seed: int = 0,
    new_split: bool = False,
    missing: str = "error",
    salt_file: str | os.PathLike[str] | None = None,
    plain_groups: bool = False,
) -> Datalist:
    """Turn whatever holds labelled frames into a datalist.

    The source is one of

    - a datalist: MONAI's JSON, or a folder that holds one as ``datalist.json``;
    - the folder of FETAL_PLANES_DB as published;
    - a table: CSV or TSV;
    - a folder per class, of pictures or DICOM.

    A split of the source is kept. What has none is split by group, stratified by class; where a source only tells
    training from testing, validation is cut from training. The split is the same for a seed, whatever the salt.

    Args:
        path: the source.
        class_names: the class table; by default that of the source, else the names found in alphabetical order.
        task: of FETAL_PLANES_DB: ``"planes"`` (the default) or ``"brain_planes"``.
        columns: of a table: names of columns by meaning, see ``read_table``.
        images: of a table: the folder that image paths are relative to; the folder of the table by default.
        group_pattern: of class folders: regular expression with one capture group that finds the patient in a path.
        cine_step: of class folders: take each n-th frame of a file of several; all by default.
        val: fraction of the frames outside testing to hold out for validation; 0 for none.
        test: fraction of the frames to hold out for testing; 0 for none.
        folds: deal the frames outside testing into this many folds (key ``fold``) instead of holding out validation.
        seed: seed of splits and folds.
        new_split: split anew, whatever split the source has.
        missing: ``"error"`` to refuse a source with images that do not exist, ``"skip"`` to leave these frames out.
        salt_file: where the salt of the group keys is kept, see :class:`Pseudonyms`.
        plain_groups: keep groups and operators as the source names them, where these are pseudonyms already. By default
            they are hashed, except those of FETAL_PLANES_DB and of datalists made by this package.

    Returns:
        The datalist. A group may be in more than one of its sections, see :meth:`Datalist.require_groups_apart`.

    Raises:
        FileNotFoundError: when the source or an image is not there.
        ValueError: when the source cannot be read or has no such option, a label is outside the class table, or frames
            are too few to split.
    """
    if missing not in ("error", "skip"):
        raise ValueError(f"missing must be 'error' or 'skip', got '{missing}'.")
    path = Path(path)
    options = {
        "task": task,
        "columns": columns,
        "images": images,
        "group_pattern": group_pattern,
        "cine_step": cine_step,
    }
    source = _read(path, {name: value for name, value in options.items() if value is not None})
    table = _class_table(source, class_names, path)
    rows = [row for row in source.rows if os.path.isfile(row["image"])]
    left_out = dict(source.left_out)
    if absent := len(source.rows) - len(rows):
        if missing == "error":
            raise FileNotFoundError(_absent_images(source, path, absent))
        left_out["the image does not exist"] = absent
    for reason, count in left_out.items():
        logger.warning("%d frame(s) of '%s' are left out: %s.", count, path, reason)

    rows = [row | {"label": _label(row, table)} for row in rows]
    sections, split = arrange(rows, source.complete, val=val, test=test, folds=folds, seed=seed, new_split=new_split)
    hashed = not (plain_groups or source.pseudonymous)
    if hashed:  # after the split, so that it does not depend on the salt
        pseudonym = Pseudonyms(salt_file)
        for row in (row for members in sections.values() for row in members):
            row.update({key: pseudonym(row[key]) for key in _IDENTIFYING if key in row})
    _fill(rows)
    provenance = {
        "made_by": f"monai_fetalkd {__version__}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {"kind": source.kind, "name": source.name, **source.record},
        "settings": {**source.settings, **split, "hashed_groups": hashed},
        "left_out": left_out,
    }
    datalist = Datalist(str(path), table.names, sections, source.about, provenance)
    if "seed" in split:
        _tell_absent_classes(datalist)
    return datalist


def _read(path: Path, options: dict[str, Any]) -> Source:
    reader, path = _reader(path)
    # an option that is ignored could be a patient column that is not used
    if strange := options.keys() - _OPTIONS[reader]:
        raise ValueError(
            f"'{path}' has no use for {' and '.join(sorted(strange))}: this is for another kind of source."
        )
    return reader(path, **options)


def _reader(path: Path) -> tuple[Callable[..., Source], Path]:
    """What reads a source, and the path to give it."""
    if not path.exists():
        raise FileNotFoundError(f"The dataset '{path}' does not exist: give the path of its folder or datalist.")
    if path.is_dir():
        if (path / "datalist.json").is_file():
            return read_json_datalist, path / "datalist.json"
        return (read_fetal_planes_db if (path / TABLE).is_file() else read_class_folders), path
    if path.name == TABLE:
        return read_fetal_planes_db, path.parent
    if path.suffix.lower() == ".json":
        return read_json_datalist, path
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return read_table, path
    raise ValueError(f"'{path}' is no datalist (.json) and no table (.csv, .tsv).")


def _class_table(source: Source, class_names: Sequence[str] | None, path: Path) -> ClassTable:
    if class_names is None:
        if source.class_names is not None:
            return ClassTable(source.class_names)
        return ClassTable.found(row["label"] for row in source.rows)
    table = ClassTable(class_names)
    if source.class_names is not None and table != (own := ClassTable(source.class_names)):
        raise ValueError(
            f"The classes of '{path}' ({own}) are not those asked for ({table}): ask for its own, in their order, or "
            "give another dataset."
        )
    return table


def _absent_images(source: Source, path: Path, count: int) -> str:
    first = next(row["image"] for row in source.rows if not os.path.isfile(row["image"]))
    return (
        f"{count} of the {len(source.rows)} frames of '{path}' have no image, the first is the image '{first}': "
        "restore them, or leave them out (missing=skip)."
    )


def _label(row: Row, table: ClassTable) -> int:
    label = table.label(row["label"])
    if label is None:
        raise ValueError(f"The label {row['label']!r} of '{row['image']}' is outside the class table ({table}).")
    return label


def _fill(rows: Sequence[Row]) -> None:
    """Give all rows the texts that some have, so that a loader can put any of them into one batch."""
    for key in {"machine", "operator"} & {key for row in rows for key in row}:
        for row in rows:
            row.setdefault(key, "")


def _tell_absent_classes(datalist: Datalist) -> None:
    groups: dict[int, set[str]] = {label: set() for label in range(len(datalist.class_names))}
    for rows in datalist.sections.values():
        for row in rows:
            groups[row["label"]].add(row["group"])
    for section, counts in datalist.counts().items():
        for label, (name, count) in enumerate(counts.items()):
            if not count and groups[label]:
                few = f"its frames come from {len(groups[label])} group(s)"
                logger.warning("The class '%s' has no frames in '%s': %s.", name, section, few)
