"""The data of a teacher without a bundle: what its datalist holds, checked before anything is built on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monai.transforms import EnsureChannelFirst, LoadImage

from monai_fetalkd.bundle.workflow import quiet_readers
from monai_fetalkd.utils.machine import first_line

from .config import read_file

__all__ = ["LabelledImages", "Task", "read_labelled_images"]

Task = Literal["segmentation", "classification"]

_SPLITS = ("training", "validation", "testing")
# positions along an axis of what a network takes, for images of two and of three axes
_LARGEST: Mapping[Task, Mapping[int, int]] = {"segmentation": {2: 256, 3: 96}, "classification": {2: 224, 3: 96}}
_STEP = 32  # five halvings, as the deepest networks of MONAI have


@dataclass(frozen=True)
class LabelledImages:
    """The images of a datalist and what is known of them.

    Attributes:
        path: the datalist.
        task: ``"segmentation"`` where labels are files, ``"classification"`` where they are class numbers.
        shape: channels and size of the first image.
        suffix: how the names of the files end.
        names: its class names by number, where it has any.
        labels: the class numbers of a classification.
    """

    path: Path
    task: Task
    shape: tuple[int, ...]
    suffix: str
    names: Mapping[str, Any] | None
    labels: frozenset[int]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels and size of what a network takes: a patch of an image, or the whole image resized."""
        channels, *sizes = self.shape
        largest = _LARGEST[self.task][len(sizes)]
        return (channels, *(max(_STEP, min(largest, size) // _STEP * _STEP) for size in sizes))

    def class_names(self, count: int) -> list[str]:
        """The class table of a network with this number of classes.

        Raises:
            ValueError: when the datalist has other classes.
        """
        if too_large := sorted(label for label in self.labels if label >= count):
            raise ValueError(
                f"The datalist '{self.path}' has images of class {too_large[0]}, but the teacher gives {count} "
                "classes, from 0 on."
            )
        if self.names is None:
            numbered = [f"class {number}" for number in range(count)]
            return numbered if self.task == "classification" else ["background", *numbered[1:]]
        if sorted(self.names) != sorted(map(str, range(count))):
            raise ValueError(
                f"The datalist '{self.path}' names the classes {dict(self.names)}, but the teacher gives {count}, from "
                "0 on."
            )
        return [str(self.names[str(number)]) for number in range(count)]


def read_labelled_images(path: Path) -> LabelledImages:
    """Read a MONAI datalist of images with segmentations or class numbers, and its first image.

    Args:
        path: a JSON or YAML file with lists ``training``, ``validation`` and ``testing``.

    Raises:
        FileNotFoundError: when there is no such file, or none that it names first.
        ValueError: when a list is missing, labels are of different kinds, or the first image cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no datalist '{path}'.")
    content = read_file(path)
    task = _task(content, path)
    first = content["training"][0]
    labels = content.get("labels")
    return LabelledImages(
        path.resolve(),
        task,
        _first_shape(first, path, task),
        ".nii*" if ".nii" in first["image"] else Path(first["image"]).suffix,
        labels if isinstance(labels, Mapping) else None,
        frozenset(row["label"] for split in _SPLITS for row in content[split] if task == "classification"),
    )


def _task(content: Mapping[str, Any], path: Path) -> Task:
    task: Task | None = None
    for split in _SPLITS:
        rows = content.get(split)
        if not isinstance(rows, Sequence) or not rows:
            raise ValueError(
                f"The datalist '{path}' has no list '{split}': split it by patient into {', '.join(_SPLITS)} "
                "(python -m monai_fetalkd datalist)."
            )
        for number, row in enumerate(rows, start=1):
            found = _task_of(row)
            if found is None or found != (task := task or found):
                wanted = {"segmentation": "a file", "classification": "a class number", None: "a file or class number"}
                raise ValueError(
                    f"Number {number} of '{split}' in the datalist '{path}' does not name an 'image' file and, as "
                    f"'label', {wanted[task]}: only segmentation and classification can be distilled from weights "
                    "alone."
                )
    assert task is not None
    return task


def _task_of(row: Any) -> Task | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("image"), str):
        return None
    label = row.get("label")
    if isinstance(label, str):
        return "segmentation"
    return "classification" if type(label) is int and label >= 0 else None


def _first_shape(row: Mapping[str, Any], datalist: Path, task: Task) -> tuple[int, ...]:
    path = datalist.parent / row["image"]
    for file in [path, datalist.parent / row["label"]] if task == "segmentation" else [path]:
        if not file.is_file():
            raise FileNotFoundError(f"There is no file '{file}', which the datalist '{datalist}' names.")
    try:
        with quiet_readers():
            image = EnsureChannelFirst()(LoadImage(image_only=True)(path))
    except Exception as error:  # readers fail in many ways
        raise ValueError(f"The image '{path}' cannot be read: {first_line(error)}.") from error
    if image.ndim - 1 not in _LARGEST[task]:
        raise ValueError(f"The image '{path}' has {image.ndim - 1} spatial axes; it must have 2 or 3.")
    return tuple(image.shape)
