"""From whatever a user holds to a datalist."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_fetalkd import __version__
from monai_fetalkd.ultrasound.data.datalist.class_folders import read_class_folders
from monai_fetalkd.ultrasound.data.datalist.class_table import ClassTable, table_of
from monai_fetalkd.ultrasound.data.datalist.datalist import Datalist, frame_key, listed_once
from monai_fetalkd.ultrasound.data.datalist.fetal_planes_db import TABLE, read_fetal_planes_db
from monai_fetalkd.ultrasound.data.datalist.groups import Pseudonyms, with_groups
from monai_fetalkd.ultrasound.data.datalist.images import subfolders
from monai_fetalkd.ultrasound.data.datalist.json_datalist import read_json_datalist
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED, Row, Source, section_of, without
from monai_fetalkd.ultrasound.data.datalist.segmentation import holds_masks, read_masks
from monai_fetalkd.ultrasound.data.datalist.splits import TooFewError, arrange
from monai_fetalkd.ultrasound.data.datalist.table import read_table
from monai_fetalkd.ultrasound.data.datalist.unlabelled import read_unlabelled

__all__ = ["class_names_of", "load_datalist", "read_source"]

logger = logging.getLogger(__name__)

_IDENTIFYING = ("group", "operator")
_OPTIONS: dict[Callable[..., Source], set[str]] = {
    read_json_datalist: set(),
    read_fetal_planes_db: {"task"},
    read_table: {"columns", "images"},
    read_class_folders: {"group_pattern", "cine_step"},
    read_masks: {"group_pattern"},
    read_unlabelled: {"columns", "images", "group_pattern", "cine_step"},
}


def load_datalist(
    path: str | os.PathLike[str], class_names: Sequence[str] | None = None, *, fold: int | None = None, **options: Any
) -> Datalist:
    r"""Read the frames of a task for training or evaluation, and refuse what would make its metrics worthless.

    Args:
        path: what holds the frames, see :func:`read_source`.
        class_names: the class table; the label of a name is its position. By default that of the source, else the names
            found in alphabetical order.
        fold: of a datalist with folds, the one to validate on; the others are for training.
        options: those of :func:`read_source`.

    Returns:
        The datalist; its method ``section`` gives the frames of ``"training"``, ``"validation"``, ``"testing"`` or
        ``"unlabelled"``.

    Raises:
        FileNotFoundError: when the source or an image is not there.
        ValueError: when it cannot be read, its labels are masks, a label is outside the class table, a frame has two
            labels, or a group is in more than one section.

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
    if datalist.has_masks:
        raise ValueError(
            f"The labels of '{path}' are masks, but this is the recognition of classes: for segmentation, write "
            "a datalist by `python -m monai_fetalkd datalist` and read it by `monai.data.load_decathlon_datalist`."
        )
    datalist.validate()
    names = ", ".join(datalist.class_names)
    logger.info("data: '%s', %d classes (%s); %s", path, len(datalist.class_names), names, _sizes(datalist))
    return datalist


def class_names_of(
    path: str | os.PathLike[str], task: str | None = None, columns: Mapping[str, str] | None = None
) -> list[str]:
    r"""The class names of a source, before anything else of it is checked or split.

    Args:
        path: the source, see :func:`read_source`.
        task: see there.
        columns: see there.

    Returns:
        Those that the source gives, else those found in alphabetical order; none where there is no such source.

    Raises:
        ValueError: when it cannot be read, or its labels are numbers without names.

    Example:
        >>> import tempfile
        >>> table = Path(tempfile.mkdtemp()) / "planes.csv"
        >>> _ = table.write_text("image,label,patient_id\na.png,femur,17\nb.png,brain,18\n")
        >>> class_names_of(table)
        ['brain', 'femur']
    """
    path = Path(path)
    if not path.exists():
        return []
    options = {"task": task, "columns": columns}
    source = _read(path, {name: value for name, value in options.items() if value is not None}, False)
    return table_of(source, None, path).names


def read_source(
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    *,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] | None = None,
    group_pattern: str | None = None,
    cine_step: int | None = None,
    unlabelled: str | os.PathLike[str] | None = None,
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
    - a folder of images with masks, for segmentation;
    - a folder per class, of pictures or DICOM.

    A split of the source is kept. What has none is split by group, stratified by class; where a source only tells
    training from testing, validation is cut from training. The split is the same for a seed, whatever the salt.
    What is left out is counted in the provenance and said in the log.

    Args:
        path: the source.
        class_names: the class table; by default that of the source, else the names found in alphabetical order.
        task: of FETAL_PLANES_DB: ``"planes"`` (the default) or ``"brain_planes"``.
        columns: of a table: names of columns by meaning, see ``read_table``.
        images: of a table: the folder that image paths are relative to; the folder of the table by default.
        group_pattern: of folders: regular expression with one capture group that finds the patient in a path.
        cine_step: of folders: take each n-th frame of a file of several; all by default.
        unlabelled: frames without labels to add: a folder, a list of files (``.txt``) or a table. Those of patients
            that are held out for validation or testing are left out.
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
        The datalist. A group may be in more than one of its sections, see :meth:`Datalist.validate`.

    Raises:
        FileNotFoundError: when the source or an image is not there.
        ValueError: when the source cannot be read or has no such option, a label is outside the class table, or classes
            or groups are too few.
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
    pseudonym = Pseudonyms(salt_file)
    source = _read(path, {name: value for name, value in options.items() if value is not None}, unlabelled is not None)
    if unlabelled is not None:
        more = _read_unlabelled(unlabelled, options)
        if source.pseudonymous and not plain_groups:
            _hash(more.rows, pseudonym)
        source = _together(source, more)
    table = table_of(source, class_names, path)

    left_out = Counter(source.left_out)
    rows = [row for row in with_groups(source) if all(map(os.path.isfile, _files(row, source.masks)))]
    if absent := len(source.rows) - len(rows):
        if missing == "error":
            raise FileNotFoundError(_absent_images(source, path, absent))
        left_out["frames whose image does not exist"] = absent
    if not source.masks:
        rows = [row | {"label": _label(row, table)} if "label" in row else row for row in rows]
    rows, repeated = listed_once(rows)
    left_out += repeated

    labelled = [row for row in rows if "label" in row]
    count = len({row["group"] for row in labelled})
    if count < len(table.names) and len(labelled) > 1:
        said = "There are more classes than patients: are their folders or columns the other way round?"
        logger.warning("%s %s", said, _recognised(source, labelled, table, path))
    try:
        sections, split = arrange(
            labelled, source.complete, val=val, test=test, folds=folds, seed=seed, new_split=new_split
        )
    except TooFewError as error:
        raise TooFewError(f"{error} {_recognised(source, labelled, table, path)}") from None
    hidden = [without(row, "section") for row in rows if "label" not in row]
    if unlabelled is not None or "seed" in split:
        hidden, withheld = _for_training(hidden, sections)
        left_out += withheld
    hashed = not (plain_groups or source.pseudonymous)
    if hashed:  # after the split, so that it does not depend on the salt
        for members in (*sections.values(), hidden):
            _hash(members, pseudonym)
    _fill([row for members in (*sections.values(), hidden) for row in members])
    for reason, count in left_out.items():
        logger.warning("left out of '%s': %d %s.", path, count, reason)
    provenance = {
        "made_by": f"monai_fetalkd {__version__}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {"kind": source.kind, "name": source.name, **source.record},
        "settings": {**source.settings, **split, "hashed_groups": hashed},
        "left_out": dict(left_out),
    }
    datalist = Datalist(str(path), table.names, sections, source.about, provenance, hidden)
    if "seed" in split and not source.masks:
        _tell_absent_classes(datalist)
    return datalist


def _read(path: Path, options: dict[str, Any], with_unlabelled: bool) -> Source:
    reader, path = _reader(path)
    # an option that is ignored could be a patient column that is not used
    known = _OPTIONS[reader] | (_OPTIONS[read_unlabelled] if with_unlabelled else set())
    if strange := options.keys() - known:
        raise ValueError(
            f"'{path}' has no use for {' and '.join(sorted(strange))}: this is for another kind of source."
        )
    return reader(path, **{name: value for name, value in options.items() if name in _OPTIONS[reader]})


def _read_unlabelled(path: str | os.PathLike[str], options: Mapping[str, Any]) -> Source:
    known = {name: options[name] for name in _OPTIONS[read_unlabelled] if options[name] is not None}
    return read_unlabelled(path, **known)


def _together(source: Source, more: Source) -> Source:
    return replace(
        source,
        rows=[*source.rows, *more.rows],
        left_out=dict(Counter(source.left_out) + Counter(more.left_out)),
        settings={**source.settings, "unlabelled": more.name},
    )


def _reader(path: Path) -> tuple[Callable[..., Source], Path]:
    """What reads a source, and the path to give it."""
    if not path.exists():
        raise FileNotFoundError(f"The dataset '{path}' does not exist: give the path of its folder or datalist.")
    if path.is_dir():
        path = _unwrapped(path)
        if (path / "datalist.json").is_file():
            return read_json_datalist, path / "datalist.json"
        if (path / TABLE).is_file():
            return read_fetal_planes_db, path
        return (read_masks if holds_masks(path) else read_class_folders), path
    if path.name == TABLE:
        return read_fetal_planes_db, path.parent
    suffix = path.suffix.lower()
    if suffix == ".json":
        return read_json_datalist, path
    if suffix in (".csv", ".tsv", ".txt"):
        return read_table, path
    advice = {".xls": ": save it as CSV", ".xlsx": ": save it as CSV", ".zip": ": unpack it"}.get(suffix, "")
    raise ValueError(f"'{path}' is no datalist (.json) and no table (.csv, .tsv){advice}.")


def _unwrapped(folder: Path) -> Path:
    """The folder of a data set, or the only folder in it that is one, as an archive is unpacked."""
    if _is_dataset(folder):
        return folder
    inner = subfolders(folder)
    found = [each for each in inner if _is_dataset(each)]
    if found and len(inner) > 1:
        raise ValueError(f"'{folder}' holds the data set '{found[0]}' beside other folders: give the one you mean.")
    if len(inner) == 1 and (found or _unwrapped(inner[0]) != inner[0]):
        logger.info("The data set is read from '%s', the only folder in '%s'.", inner[0], folder)
        return _unwrapped(inner[0])
    return folder


def _is_dataset(folder: Path) -> bool:
    """Whether a folder says by its content what it is; folders of classes could as well be those of patients."""
    known = any((folder / name).is_file() for name in ("datalist.json", TABLE))
    return known or holds_masks(folder) or any(section_of(each.name) == "training" for each in subfolders(folder))


def _recognised(source: Source, rows: Sequence[Row], table: ClassTable, path: Path) -> str:
    """What was taken for classes and patients, for whoever has given another folder or column than was meant."""
    groups = {row["group"] for row in rows}
    patients = "all are of one patient" if len(groups) == 1 else f"they are of {len(groups)} patients"
    classes = f", the classes are {', '.join(table.names)}" if table.names else ""
    option = next((name for name in ("group_pattern", "columns") if name in source.settings), None)
    advice = {
        "group_pattern": "where the folder or the name of the file tells the patient, say how: for example "
        "--group_pattern '^([^/]+)/' for the folder in that of the class",
        "columns": "name the column of the patients (--group_column)",
        None: "correct the groups there",
    }[option]
    return f"In '{path}' {patients} by {source.groups_from}{classes}. If this is wrong, {advice}."


def _files(row: Row, masks: bool) -> list[str]:
    return [row["image"], row["label"]] if masks and "label" in row else [row["image"]]


def _absent_images(source: Source, path: Path, count: int) -> str:
    files = (file for row in source.rows for file in _files(row, source.masks))
    first = next(file for file in files if not os.path.isfile(file))
    return (
        f"{count} of the {len(source.rows)} frames of '{path}' have no image, the first is the image '{first}': "
        "restore them, or leave them out (`--missing skip`, in Python missing='skip')."
    )


def _label(row: Row, table: ClassTable) -> int:
    label = table.label(row["label"])
    if label is None:
        raise ValueError(f"The label {row['label']!r} of '{row['image']}' is outside the class table ({table}).")
    return label


def _for_training(rows: list[Row], sections: dict[str, list[Row]]) -> tuple[list[Row], Counter[str]]:
    """The unlabelled frames of which no patient is held out, and no frame labelled; the number of the others."""
    held_out = {row["group"] for name in ("validation", "testing") for row in sections.get(name, [])}
    labelled = {frame_key(row) for members in sections.values() for row in members}
    apart = [row for row in rows if row["group"] not in held_out]
    kept = [row for row in apart if frame_key(row) not in labelled]
    left_out = {
        "unlabelled frames of patients held out for validation or testing": len(rows) - len(apart),
        "unlabelled frames that have a label elsewhere": len(apart) - len(kept),
    }
    return kept, +Counter(left_out)


def _hash(rows: Iterable[Row], pseudonym: Pseudonyms) -> None:
    for row in rows:
        row.update({key: pseudonym(row[key]) for key in _IDENTIFYING if key in row})


def _fill(rows: Sequence[Row]) -> None:
    """Give all rows the texts that some have, so that a loader can put any of them into one batch."""
    for key in {"machine", "operator"} & {key for row in rows for key in row}:
        for row in rows:
            row.setdefault(key, "")


def _sizes(datalist: Datalist) -> str:
    splits = {**datalist.sections, **({UNLABELLED: datalist.unlabelled} if datalist.unlabelled else {})}
    counts = {name: (len(rows), len({row["group"] for row in rows})) for name, rows in splits.items()}
    return ", ".join(f"{name} {frames} frames of {groups} patients" for name, (frames, groups) in counts.items())


def _tell_absent_classes(datalist: Datalist) -> None:
    groups: dict[int, set[str]] = {label: set() for label in range(len(datalist.class_names))}
    for rows in datalist.sections.values():
        for row in rows:
            groups[row["label"]].add(row["group"])
    for label, name in enumerate(datalist.class_names):
        if not groups[label]:
            logger.warning("The class '%s' has no frame at all in '%s'.", name, datalist.path)
    for section, counts in datalist.counts().items():
        for label, (name, count) in enumerate(counts.items()):
            if not count and groups[label]:
                few = f"its frames come from {len(groups[label])} group(s)"
                logger.warning("The class '%s' has no frames in '%s': %s.", name, section, few)
