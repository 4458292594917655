"""A teacher without a bundle: weights in a file, a network that takes them, and data from a datalist."""

from __future__ import annotations

import json
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.networks.utils import eval_mode
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from monai_fetalkd.utils.checkpoints import is_torchscript, load_weights, read_state_dict
from monai_fetalkd.utils.machine import first_line

from .config import Config, read_file
from .datalist import LabelledImages, Task, read_labelled_images
from .pairing import pair_layers
from .reading import build_network, removed_arguments
from .widths import reduced_arguments

__all__ = ["WeightsPlan", "plan_weights"]


@dataclass(frozen=True)
class WeightsPlan:
    """A segmentation or classification under a teacher that is known by its weights.

    Attributes:
        weights: the teacher's weights, or the whole network as TorchScript.
        teacher_network: the teacher.
        definition: its definition; None for TorchScript, whose layers cannot be tapped.
        student_network: the student.
        student: its definition.
        pairs: layers of student and teacher that are compared.
        images: the data.
        image_shape: channels and size of what the networks take.
        class_names: the class table.
    """

    weights: Path
    teacher_network: nn.Module
    definition: dict[str, Any] | None
    student_network: nn.Module
    student: dict[str, Any]
    pairs: list[tuple[str, str]]
    images: LabelledImages
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
        datalist: a MONAI datalist of images with segmentations or class numbers, with lists ``training``,
            ``validation`` and ``testing``.
        reduce: what widths are divided by, see :func:`~.widths.reduced_arguments`; 2 where ``student`` is not given.
        student: JSON or YAML with the definition of the student instead.

    Returns:
        The plan; nothing has been written.

    Raises:
        FileNotFoundError, ImportError, ValueError: when something is missing or does not fit, in one sentence.
    """
    if _is_packed_bundle(weights):
        raise ValueError(f"'{weights}' is a packed bundle: unpack it and give its folder as --teacher.")
    if not is_torchscript(weights):
        read_state_dict(weights)  # before anything that belongs to it is asked for
    if datalist is None:
        root = weights.absolute().parents[1]
        hint = f", or its bundle '{root}' as --teacher" if (root / "configs").is_dir() else ""
        raise ValueError(f"The weights '{weights}' come without data: give a datalist as --datalist{hint}.")
    teacher, definition = _teacher(weights, network, student)
    images = read_labelled_images(datalist)
    image_shape = _input_shape(images, definition)
    count = _classes(teacher, image_shape, images.task, f"The teacher '{weights}'")
    if student is not None:
        small, student_definition = _defined(student, "--student")
    else:
        assert network is not None
        small, student_definition = _defined(network, "--network", 2.0 if reduce is None else reduce)
    if _classes(small, image_shape, images.task, "The student") != count:
        raise ValueError(f"The student gives another number of classes than the teacher, which gives {count}.")
    pairs = [] if definition is None else pair_layers(small, teacher, image_shape)
    return WeightsPlan(
        weights.resolve(),
        teacher,
        definition,
        small,
        student_definition,
        pairs,
        images,
        image_shape,
        images.class_names(count),
    )


def _is_packed_bundle(path: Path) -> bool:
    names: list[str] = []
    with suppress(OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tape:
                names = tape.getnames()
    return any(name.endswith("configs/metadata.json") for name in names)


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
    network, removed = build_network(component), removed_arguments(component)
    values = {key: component.value(key) for key in component.arguments if key not in removed}
    if reduce is not None:
        changed = reduced_arguments(component.target, values, reduce)
        network, values = build_network(component, **changed), values | changed
    try:
        json.dumps(values)
    except TypeError as error:
        raise ValueError(f"The network of '{path}' has an argument that no config can hold: {error}.") from error
    return network, {"_target_": component.name, **values}


def _input_shape(images: LabelledImages, definition: dict[str, Any] | None) -> tuple[int, ...]:
    """That of the images, or the one size that a transformer with fixed positions takes."""
    channels, *sizes = images.input_shape
    fixed = (definition or {}).get("img_size")
    return (channels, *(sizes if fixed is None else ensure_tuple_rep(fixed, len(sizes))))


def _classes(network: nn.Module, image_shape: Sequence[int], task: Task, what: str) -> int:
    """The number of classes that a network gives for an image, or for each position of it."""
    try:
        with eval_mode(network), torch.no_grad():
            output = network(torch.zeros(1, *image_shape))
    except Exception as error:  # a network may refuse an image in any way
        raise ValueError(f"{what} refuses an image of {tuple(image_shape)}: {first_line(error)}.") from error
    positions = tuple(image_shape[1:]) if task == "segmentation" else ()
    if not isinstance(output, Tensor) or output.shape[2:] != positions or output.ndim < 2 or output.shape[1] < 2:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        where = "at each position" if task == "segmentation" else "for the whole image"
        labels = "files" if task == "segmentation" else "class numbers"
        raise ValueError(
            f"{what} gives {given} for an image of {tuple(image_shape)}, but the labels of the datalist are {labels}: "
            f"it must give logits of two or more exclusive classes {where}."
        )
    return int(output.shape[1])
