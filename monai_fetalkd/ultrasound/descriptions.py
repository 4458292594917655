"""What a network was trained on, kept beside its weights, so that they are not used for something else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.transforms import Compose

from monai_fetalkd.ultrasound.transforms import CropSectord
from monai_fetalkd.utils.files import written_whole

__all__ = ["check_weights", "crops_to_sector", "describe_weights", "description_path"]

# what a message calls a field, and the item of a config that sets it
_NAMES = {"image_size": "frames of size", "class_names": "the classes", "crop": "frames cropped to the scan sector:"}
_ITEMS = {"image_size": "image_size", "class_names": "class_names", "crop": "reading (ultrasound.json)"}


def describe_weights(
    path: str | os.PathLike[str], *, image_size: Sequence[int], class_names: Sequence[str], reading: Compose
) -> None:
    """Write a description beside weights; the weights stay a plain state dict.

    Of several ranks, the first writes.

    Args:
        path: the file of the weights; that of the description ends in ``.json`` instead.
        image_size: of the frames.
        class_names: the class table.
        reading: the transforms that read a frame.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "model.pt")
        >>> describe_weights(path, image_size=[64, 64], class_names=["brain", "other"], reading=Compose([]))
        >>> check_weights(path, image_size=[96, 96], class_names=["brain", "other"], reading=Compose([]))
        Traceback (most recent call last):
        ...
        ValueError: The network of '...model.pt' was trained on frames of size [64, 64], not [96, 96]: give ...
    """
    _write(description_path(path), _description(image_size, class_names, reading))


def check_weights(
    path: str | os.PathLike[str], *, image_size: Sequence[int], class_names: Sequence[str], reading: Compose
) -> None:
    """Check that weights were trained on frames of this size, these classes and this reading.

    Weights without a description, as of another program, are taken as they are. What a description holds null for was
    varied in training: a ``crop`` of null stands for frames both whole and cropped to their sector.

    Args:
        path: the file of the weights.
        image_size: of the frames.
        class_names: the class table.
        reading: the transforms that read a frame.

    Raises:
        ValueError: when they were trained otherwise, or the description is damaged.
    """
    described = description_path(path)
    if not described.is_file():
        return
    try:
        found = json.loads(described.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    wanted = _description(image_size, class_names, reading)
    if not isinstance(found, Mapping) or not wanted.keys() <= found.keys():
        raise ValueError(f"The description '{described}' of a network is damaged: delete it, or restore it.")
    for name, value in wanted.items():
        if found[name] not in (None, value):
            raise ValueError(
                f"The network of '{path}' was trained on {_NAMES[name]} {_shown(found[name])}, not {_shown(value)}: "
                f"give its {_ITEMS[name]}, or another checkpoint (see '{described.name}' beside it)."
            )


def description_path(path: str | os.PathLike[str]) -> Path:
    """The file that describes weights.

    Args:
        path: the file of the weights.

    Returns:
        Its path.
    """
    return Path(path).with_suffix(".json")


def crops_to_sector(reading: Compose) -> bool:
    """Whether transforms crop a frame to its scan sector.

    Args:
        reading: the transforms.

    Returns:
        Whether a ``CropSectord`` is among them.
    """
    return any(isinstance(step, CropSectord) for step in reading.flatten().transforms)


def _description(image_size: Sequence[int], class_names: Sequence[str], reading: Compose) -> dict[str, Any]:
    return {"image_size": list(image_size), "class_names": list(class_names), "crop": crops_to_sector(reading)}


@idist.one_rank_only()
def _write(path: Path, description: Mapping[str, Any]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def _shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
