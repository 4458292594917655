"""A distillation that can be written down: the teacher, the student, their pairs of layers and the kind of head."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from monai_fetalkd.utils.checkpoints import load_weights
from monai_fetalkd.utils.machine import first_line

from .config import Component, Config, read_file
from .heads import Head, head_of, label_loss_of
from .pairing import pair_layers, run_once
from .reading import TeacherBundle, build_network, read_bundle, removed_arguments
from .widths import UnknownWidthError, reduced_arguments

__all__ = ["DistillationPlan", "plan_distillation"]


@dataclass(frozen=True)
class DistillationPlan:
    """Everything that a student bundle is written from.

    Attributes:
        teacher: the teacher bundle.
        teacher_network: its network, on the meta device.
        student_network: the student, on the meta device.
        inference: the inference config of the student.
        trained: the student's definition in training where it differs from that of inference, else None.
        pairs: layers of student and teacher that are compared.
        head: what the networks give.
        output_shape: shape of the teacher's output for one image, of its main head where it has several.
    """

    teacher: TeacherBundle
    teacher_network: nn.Module
    student_network: nn.Module
    inference: Config
    trained: dict[str, Any] | None
    pairs: list[tuple[str, str]]
    head: Head
    output_shape: tuple[int, ...]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels and size of an image."""
        return self.teacher.image_shape


def plan_distillation(root: Path, reduce: float | None = None, student: Path | None = None) -> DistillationPlan:
    """Read a teacher bundle, make its student, and pair their layers.

    Args:
        root: the teacher bundle; its modules must be importable, see :func:`~.config.importable`.
        reduce: what widths are divided by, see :func:`~.widths.reduced_arguments`.
        student: a file with the student's definition instead.

    Returns:
        The plan; nothing has been written.

    Raises:
        FileNotFoundError, ImportError, ValueError: when the bundle cannot be read or its network not be distilled, in
            one sentence.
    """
    teacher = read_bundle(root)
    network = build_network(teacher.trained)
    if not teacher.weights.is_file():
        raise FileNotFoundError(
            f"The bundle '{root}' has no weights '{teacher.weights}': download them (python -m monai.bundle "
            "download_large_files), or train it first."
        )
    load_weights(network, teacher.weights)
    network = network.to("meta")
    output, _ = _run(network, teacher)
    head = head_of(label_loss_of(_loss(teacher)), output)
    shape = _shape(output)

    definition = _definition(teacher.definition, reduce, student)
    inference = teacher.inference.replaced(teacher.definition.id, definition)
    small = _built(inference, teacher.definition.id)
    trained = None
    if not _alike(teacher):
        trained = _definition(teacher.trained, reduce, student)
        inferred, small = small, _built(teacher.train.replaced(teacher.trained.id, trained), teacher.trained.id)
        _check_same_weights(inferred, small, teacher)
    small = small.to("meta")
    small_output, _ = _run(small, teacher, "The student cannot be made so")
    if _shape(small_output) != shape:
        raise ValueError(
            f"The student gives {_shape(small_output)} for an image of {teacher.image_shape}, the teacher {shape}: "
            "only outputs of the same shape can be compared."
        )
    pairs = _own_pairs(teacher.trainer, small, network) or pair_layers(small, network, teacher.image_shape)
    return DistillationPlan(teacher, network, small, inference, trained, pairs, head, shape)


def current_definition(component: Component) -> dict[str, Any]:
    """A definition as it is written, without arguments that MONAI knows no more."""
    written, removed = copy.deepcopy(component.config.get(component.id)), removed_arguments(component)
    return {key: value for key, value in written.items() if key not in removed}


def _definition(component: Component, reduce: float | None, student: Path | None) -> dict[str, Any]:
    if student is not None:
        content = read_file(student)
        definition = content if "_target_" in content else content.get("network_def")
        if not isinstance(definition, dict) or "_target_" not in definition:
            raise ValueError(f"'{student}' defines no network: it needs a _target_, or a 'network_def' that has one.")
        return definition
    return _reduced(component, 2.0 if reduce is None else reduce)


def _reduced(component: Component, reduce: float) -> dict[str, Any]:
    """The definition with smaller widths, its own or, where it has none, those of a component it is made from."""
    definition, config = current_definition(component), component.config
    try:
        values = {key: component.value(key) for key in component.arguments if key in definition}
        return definition | reduced_arguments(component.target, values, reduce)
    except UnknownWidthError:
        for key, id in component.arguments.items():
            inner = config.component(id) if isinstance(config.get(id), (str, dict)) else None
            if inner is not None and callable(inner.target):
                return definition | {key: _reduced(inner, reduce)}
        raise


def _alike(teacher: TeacherBundle) -> bool:
    """Whether training and inference define the same network."""
    one, other = teacher.trained, teacher.definition
    if one.target is not other.target or one.arguments.keys() != other.arguments.keys():
        return False
    pairs = [(one.value(key), other.value(key)) for key in one.arguments]
    return all(type(here) is type(there) and repr(here) == repr(there) for here, there in pairs)


def _check_same_weights(inferred: nn.Module, trained: nn.Module, teacher: TeacherBundle) -> None:
    sizes, others = ({key: value.shape for key, value in one.state_dict().items()} for one in (inferred, trained))
    if any(others.get(key) != size for key, size in sizes.items()):
        raise ValueError(
            f"'{teacher.train.path.name}' and '{teacher.inference.path.name}' of '{teacher.root}' define two networks, "
            f"{type(trained).__name__} and {type(inferred).__name__}, whose weights differ: make them the same first."
        )


def _own_pairs(trainer: Component, student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    """Those that a bundle which was distilled itself compares, where both networks have such layers."""
    if not {"student_layers", "teacher_layers"} <= trainer.arguments.keys():
        return []
    pairs = list(zip(trainer.value("student_layers"), trainer.value("teacher_layers"), strict=False))
    names = [dict(network.named_modules()) for network in (student, teacher)]
    return pairs if all(one in names[0] and other in names[1] for one, other in pairs) else []


def _built(config: Config, id: str) -> nn.Module:
    component = config.component(id)
    assert component is not None
    return build_network(component)


def _loss(teacher: TeacherBundle) -> Any:
    where = f"The loss of the trainer '{teacher.trainer.id}' of '{teacher.train.path}'"
    try:
        return teacher.trainer.value("loss_function")
    except Exception as error:  # a loss may refuse its arguments in any way
        raise ValueError(f"{where} cannot be made: {first_line(error)}.") from error


def _shape(output: Any) -> tuple[int, ...]:
    """Of the main head."""
    head = output if isinstance(output, Tensor) else next(iter(tree_leaves(output)), None)
    return tuple(head.shape) if isinstance(head, Tensor) else ()


def _run(network: nn.Module, teacher: TeacherBundle, problem: str = "") -> tuple[Any, Any]:
    try:
        return run_once(network, teacher.image_shape)
    except Exception as error:  # a network may refuse an image in any way
        metadata = teacher.root / "configs" / "metadata.json"
        raise ValueError(
            f"{problem or f'{metadata} does not name the input of the network'}: a {type(network).__name__} refuses an "
            f"image of {teacher.image_shape} ({first_line(error)})."
        ) from error
