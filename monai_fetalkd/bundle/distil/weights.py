"""A teacher without a bundle: weights in a file, a network that takes them, and data from a datalist."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.networks.utils import eval_mode
from monai.transforms import EnsureChannelFirst, LoadImage
from torch import Tensor, nn

from monai_fetalkd.bundle.workflow import quiet_readers
from monai_fetalkd.utils.checkpoints import is_torchscript, load_weights
from monai_fetalkd.utils.machine import first_line

from .config import Config, read_file
from .pairing import pair_layers
from .reading import build_network
from .widths import reduced_arguments

__all__ = ["WeightsPlan", "plan_weights"]

_SPLITS = ("training", "validation", "testing")
_LARGEST = {2: 256, 3: 96}  # positions along an axis of a patch
_STEP = 32  # five halvings, as the deepest U-Nets of MONAI have


@dataclass(frozen=True)
class WeightsPlan:
    """A segmentation under a teacher that is known by its weights.

    Attributes:
        weights: the teacher's weights, or the whole network as TorchScript.
        teacher_network: the teacher.
        definition: its definition; None for TorchScript, whose layers cannot be tapped.
        student_network: the student.
        student: its definition.
        pairs: layers of student and teacher that are compared.
        datalist: the data.
        suffix: how the names of its images end.
        image_shape: channels and size of a patch.
        class_names: the class table.
    """

    weights: Path
    teacher_network: nn.Module
    definition: dict[str, Any] | None
    student_network: nn.Module
    student: dict[str, Any]
    pairs: list[tuple[str, str]]
    datalist: Path
    suffix: str
    image_shape: tuple[int, ...]
    class_names: list[str]


def plan_weights(
    weights: Path,
    network: Path | None,
    datalist: Path | None,
    reduce: float | None = None,
    student: Path | None = None,
) -> WeightsPlan:
    """Read teacher and datalist, make the student, and pair their layers.

    Args:
        weights: a checkpoint, or TorchScript.
        network: JSON or YAML with the definition of the network whose checkpoint it is; none for TorchScript.
        datalist: a MONAI datalist of images and segmentations, with lists ``training``, ``validation`` and ``testing``.
        reduce: what widths are divided by, see :func:`~.widths.reduced_arguments`; 2 where ``student`` is not given.
        student: JSON or YAML with the definition of the student instead.

    Returns:
        The plan; nothing has been written.

    Raises:
        FileNotFoundError, ImportError, ValueError: when something is missing or does not fit, in one sentence.
    """
    if zipfile.is_zipfile(weights) and _is_packed_bundle(weights):
        raise ValueError(f"'{weights}' is a packed bundle: unpack it and give its folder as --teacher.")
    if datalist is None:
        raise ValueError(f"The weights '{weights}' come without data: give a datalist as --datalist.")
    teacher, definition = _teacher(weights, network, student)
    content = _read_datalist(datalist)
    image = _first_image(content, datalist)
    image_shape = (image.shape[0], *(_patch(size, image.ndim - 1) for size in image.shape[1:]))
    count = _classes(teacher, image_shape, f"The teacher '{weights}'")
    if student is not None:
        small, student_definition = _defined(student, "--student")
    else:
        assert network is not None
        small, student_definition = _defined(network, "--network", 2.0 if reduce is None else reduce)
    if _classes(small, image_shape, "The student") != count:
        raise ValueError(f"The student gives another number of classes than the teacher, which gives {count}.")
    pairs = [] if definition is None else pair_layers(small, teacher, image_shape)
    return WeightsPlan(
        weights.resolve(),
        teacher,
        definition,
        small,
        student_definition,
        pairs,
        datalist.resolve(),
        _suffix(content["training"][0]["image"]),
        image_shape,
        _class_names(content, count, datalist),
    )


def _is_packed_bundle(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("configs/metadata.json") for name in archive.namelist())


def _teacher(weights: Path, network: Path | None, student: Path | None) -> tuple[nn.Module, dict[str, Any] | None]:
    if is_torchscript(weights):
        if network is not None:
            raise ValueError(f"'{weights}' is TorchScript, which holds its network: leave out --network.")
        if student is None:
            raise ValueError(
                f"'{weights}' is TorchScript, whose widths cannot be reduced: give the student's definition as "
                "--student FILE."
            )
        try:
            return torch.jit.load(weights, map_location="cpu").eval(), None
        except Exception as error:  # an archive may be broken in any way
            raise ValueError(f"'{weights}' cannot be loaded as TorchScript: {first_line(error)}.") from error
    if network is None:
        raise ValueError(
            f"'{weights}' holds weights without a network: give the definition of their network as --network FILE, or "
            "give TorchScript."
        )
    teacher, definition = _defined(network, "--network")
    load_weights(teacher, weights)
    return teacher, definition


def _defined(path: Path, option: str, reduce: float | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network that a file defines, and its definition in plain values; narrower where that is asked for."""
    content = read_file(path)
    config = Config(path, path.parent, content if "network_def" in content else {"network_def": content})
    component = config.component("network_def")
    if component is None:
        raise ValueError(f"'{path}' defines no network for {option}: it needs a _target_, or an item 'network_def'.")
    network = build_network(component)
    values = {key: component.value(key) for key in component.arguments}
    if reduce is not None:
        values |= reduced_arguments(component.target, values, reduce)
        network = component.target(**values)
    try:
        json.dumps(values)
    except TypeError as error:
        raise ValueError(f"The network of '{path}' has an argument that no config can hold: {error}.") from error
    return network, {"_target_": component.name, **values}


def _read_datalist(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no datalist '{path}'.")
    content = read_file(path)
    for split in _SPLITS:
        rows = content.get(split)
        if not isinstance(rows, Sequence) or not rows:
            raise ValueError(
                f"The datalist '{path}' has no list '{split}': split it by patient into {', '.join(_SPLITS)} "
                "(python -m monai_fetalkd datalist)."
            )
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping) or not all(isinstance(row.get(key), str) for key in ("image", "label")):
                raise ValueError(
                    f"Number {number} of '{split}' in the datalist '{path}' does not name an 'image' and a 'label' "
                    "file: only segmentation can be distilled from weights alone."
                )
    return content


def _first_image(content: Mapping[str, Any], datalist: Path) -> Tensor:
    row = content["training"][0]
    path = datalist.parent / row["image"]
    for file in (path, datalist.parent / row["label"]):
        if not file.is_file():
            raise FileNotFoundError(f"There is no file '{file}', which the datalist '{datalist}' names.")
    try:
        with quiet_readers():
            image = EnsureChannelFirst()(LoadImage(image_only=True)(path))
    except Exception as error:  # readers fail in many ways
        raise ValueError(f"The image '{path}' cannot be read: {first_line(error)}.") from error
    if image.ndim - 1 not in _LARGEST:
        raise ValueError(f"The image '{path}' has {image.ndim - 1} spatial axes; 2 or 3 can be segmented.")
    return image


def _patch(size: int, dims: int) -> int:
    return max(_STEP, min(_LARGEST[dims], size) // _STEP * _STEP)


def _classes(network: nn.Module, image_shape: Sequence[int], what: str) -> int:
    """The number of classes that a network gives for each position of an image."""
    try:
        with eval_mode(network), torch.no_grad():
            output = network(torch.zeros(1, *image_shape))
    except Exception as error:  # a network may refuse an image in any way
        raise ValueError(f"{what} refuses an image of {tuple(image_shape)}: {first_line(error)}.") from error
    if not isinstance(output, Tensor) or output.shape[2:] != tuple(image_shape[1:]) or output.shape[1] < 2:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"{what} gives {given} for an image of {tuple(image_shape)}: only logits of two or more exclusive classes "
            "at each position can be distilled from weights alone."
        )
    return int(output.shape[1])


def _class_names(content: Mapping[str, Any], count: int, datalist: Path) -> list[str]:
    """Those of the datalist, which may name them as that of the Medical Segmentation Decathlon does."""
    labels = content.get("labels")
    if not isinstance(labels, Mapping):
        return ["background", *(f"class {number}" for number in range(1, count))]
    if sorted(labels) != sorted(map(str, range(count))):
        raise ValueError(
            f"The datalist '{datalist}' names the classes {dict(labels)}, but the teacher gives {count}, from 0 on."
        )
    return [str(labels[str(number)]) for number in range(count)]


def _suffix(name: str) -> str:
    return ".nii*" if ".nii" in name else Path(name).suffix
