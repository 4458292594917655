"""Teachers: what a trainer asks for the targets of a batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn
from torch.nn import functional

from monai_fetalkd.inferers import PrecisionInferer
from monai_fetalkd.layouts import Layout, check_layout, named_layers, spatial_feature
from monai_fetalkd.outputs import OutputPath, logits_of
from monai_fetalkd.taps import FeatureTaps
from monai_fetalkd.utils.tensor import full_precision, plain

__all__ = ["LiveTeacher", "Query", "Targets", "Teacher", "TeacherEnsemble"]

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Query(NamedTuple):
    """What a trainer asks a teacher about a batch.

    Attributes:
        inputs: the student's input, ``[N, C, *spatial]``.
        batch: the whole batch, for a teacher with an input of its own and for the numbers of stored views.
        inferer: how networks are called.
        args: further arguments of the networks.
        kwargs: further keyword arguments of the networks.
        logits: whether the logits are wanted; a teacher may stop after its last layer otherwise.
        layers: the teacher's layer to read for each layer of the student that takes part.
        features: the student's features by layer, ``[N, C, *spatial]``, to whose sizes the teacher's are reduced.
        all_features: runs the student, without training it, for its features of all layers, for a teacher that keeps
            more than is wanted now.
        reduce: reduces a feature of the teacher to what the losses need: called with the student's layer, the teacher's
            feature and the student's.
    """

    inputs: Tensor
    batch: Mapping[str, Any]
    inferer: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    logits: bool
    layers: Mapping[str, str]
    features: Mapping[str, Tensor]
    all_features: Callable[[], Mapping[str, Tensor]]
    reduce: Callable[[str, Tensor, Tensor], Tensor]


class Targets(NamedTuple):
    """What the student learns from.

    Attributes:
        logits: the teacher's logits, ``[N, C, *spatial]``; None where nobody has asked for them.
        features: the teacher's features, as the losses need them, by the name of the student's layer.
        mask: where the logits count, bool ``[N, *spatial]``; None is everywhere.
    """

    logits: Tensor | None
    features: dict[str, Tensor]
    mask: Tensor | None = None


class Teacher(ABC):
    """What all teachers have in common: one method, which answers a query."""

    @abstractmethod
    def targets(self, query: Query) -> Targets:
        """What the student learns from in this batch.

        Args:
            query: the batch, and what is wanted.

        Returns:
            Targets without a gradient, on the device of the inputs.
        """

    @abstractmethod
    def networks(self) -> list[nn.Module]:
        """The networks that answer."""

    @abstractmethod
    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise ``ValueError`` unless these layers of the teacher can be read."""

    def describe(self) -> list[Any]:
        """All that the answers depend on beside code, weights and query, to be hashed."""
        return []

    def start(self, loader: Iterable, device: torch.device) -> None:  # noqa: B027
        """Prepare for a run; the trainer calls it once all weights are loaded.

        Args:
            loader: the loader of the training batches.
            device: the device of the trainer.
        """


class LiveTeacher(Teacher):
    """A network that is asked at every step.

    The network is called in eval mode and without gradient, whoever has called ``train()`` on it, and is left as it was
    found: its modes, and whether its parameters take gradients. It may be any module: one loaded by ``torch.jit.load``
    or exported by ``torch.export`` teaches by its logits; its layers cannot be read. A network that changes while the
    student learns, such as the ``ema_model`` of ignite's ``EMAHandler``, is asked as it is at each step.

    Its input may differ from the student's: another entry of the batch, other intensities, another size. Its logits of
    voxels are interpolated back to the size of the student's input.

    Args:
        network: the teacher.
        input_key: entry of the batch that it is given; None gives it the student's input.
        mean: subtracted from its input, a number or one for each channel.
        std: by which its input is then divided, a number or one for each channel.
        spatial_size: size to which its input is interpolated.
        device: where the network is, when that is not the device of the trainer.
        classes: the teacher's class for each class of the student, when they stand in another order or the teacher
            knows more of them.
        output: which part of what it returns are the logits, see :func:`monai_fetalkd.outputs.logits_of`.
        layout: layout of its features, see :func:`monai_fetalkd.layouts.channels_first`; one for all of its layers or
            by layer. None tells it by their shapes.
        inferer: how it is called; None takes the inferer of the trainer.

    Raises:
        ValueError: when ``std`` holds a zero, ``classes`` a negative number, or ``layout`` is unknown.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> teacher = LiveTeacher(network, mean=0.5, std=0.25, spatial_size=(32, 32), classes=[4, 0, 2])

        A trainer takes it in place of a network. In a config:

        .. code-block:: json

            "teacher": {
                "_target_": "monai_fetalkd.teachers.LiveTeacher", "network": "@teacher#network", "classes": [4, 0, 2]
            }
    """

    def __init__(
        self,
        network: nn.Module,
        input_key: str | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        spatial_size: Sequence[int] | None = None,
        device: str | torch.device | None = None,
        classes: Sequence[int] | None = None,
        output: OutputPath | None = None,
        layout: Layout | Mapping[str, Layout] | None = None,
        inferer: Callable[..., Any] | None = None,
    ) -> None:
        if any(value == 0 for value in _listed(std)):
            raise ValueError(f"std divides the teacher's input and must not be zero, got {std}")
        if classes is not None and any(index < 0 for index in classes):
            raise ValueError(f"classes must be the teacher's class for each class of the student, got {list(classes)}")
        check_layout(layout)
        self.network = network
        self.input_key = input_key
        self.mean, self.std = _listed(mean), _listed(std)
        self.spatial_size = None if spatial_size is None else tuple(spatial_size)
        self.device = None if device is None else torch.device(device)
        self.classes = None if classes is None else list(classes)
        self.output = output
        self.layout = layout
        self.inferer = inferer
        self._taps: dict[tuple[tuple[str, ...], bool], FeatureTaps] = {}

    def targets(self, query: Query) -> Targets:
        """Ask the network."""
        inputs = self._input(query)
        layers = tuple(dict.fromkeys(query.layers.values()))
        inferer = query.inferer if self.inferer is None else self.inferer
        # features are all that is wanted, and one pass gives them
        stop = bool(layers) and not query.logits and makes_one_pass(inferer)
        taps = self._taps_of(layers, stop)
        with torch.no_grad(), eval_only(self.network), taps or nullcontext():
            returned = inferer(inputs, self.network, *query.args, **query.kwargs)
        home = query.inputs.device
        features = {}
        if taps is not None:
            found = {name: self._spatial(name, feature, inputs) for name, feature in taps.pop().items()}
            for student_layer, layer in query.layers.items():
                feature = found[layer].to(home, non_blocking=True)
                features[student_layer] = query.reduce(student_layer, feature, query.features[student_layer])
        return Targets(self._logits(returned, query).to(home, non_blocking=True) if query.logits else None, features)

    def networks(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise ``ValueError`` unless these layers of the network can be read."""
        if not layers:
            return
        if isinstance(self.network, (torch.jit.ScriptModule, torch.fx.GraphModule)):
            kind = "TorchScript" if isinstance(self.network, torch.jit.ScriptModule) else "an exported graph"
            raise ValueError(
                f"the layers of a teacher that is {kind} cannot be read: teach by its logits alone (no layers), or "
                "give the teacher as a network"
            )
        FeatureTaps(self.network, list(dict.fromkeys((*layers, *named_layers(self.layout)))))

    def describe(self) -> list[Any]:
        """All settings, and those that plain attributes of its modules hold."""
        settings = [self.input_key, self.mean, self.std, self.spatial_size, self.classes, self.output, self.layout]
        own = None if self.inferer is None else inferer_settings(self.inferer)
        return [repr(settings), own, _plain_attributes(self.network)]

    def _input(self, query: Query) -> Tensor:
        inputs = query.inputs
        if self.input_key is not None:
            if self.input_key not in query.batch:
                raise ValueError(f"the batch has no '{self.input_key}' for the teacher, only {sorted(query.batch)}")
            inputs = query.batch[self.input_key].to(inputs.device, non_blocking=True)
        if self.device is not None:
            inputs = inputs.to(self.device, non_blocking=True)
        if self.mean != [0.0] or self.std != [1.0]:
            inputs = self._standardised(inputs)
        if self.spatial_size is not None and tuple(inputs.shape[2:]) != self.spatial_size:
            if len(self.spatial_size) != inputs.ndim - 2:
                raise ValueError(
                    f"spatial_size {self.spatial_size} of the teacher does not have the spatial dimensions of its "
                    f"input {tuple(inputs.shape)}"
                )
            mode = _INTERPOLATION[inputs.ndim - 2]
            inputs = functional.interpolate(plain(inputs), list(self.spatial_size), mode=mode)
        return inputs

    def _standardised(self, inputs: Tensor) -> Tensor:
        inputs = inputs if inputs.is_floating_point() else inputs.float()
        channels = inputs.shape[1]
        if {len(self.mean), len(self.std)} - {1, channels}:
            raise ValueError(
                f"mean and std of the teacher must be one number, or one for each of the {channels} channels of its "
                f"input, got {self.mean} and {self.std}"
            )
        shape = (1, -1, *(1,) * (inputs.ndim - 2))
        mean, std = (inputs.new_tensor(values).view(shape) for values in (self.mean, self.std))
        return (inputs - mean) / std

    def _logits(self, returned: Any, query: Query) -> Tensor:
        logits = logits_of(returned, self.output, "teacher")
        if self.classes is not None:
            if max(self.classes) >= logits.shape[1]:
                raise ValueError(f"classes names {max(self.classes)}, but the teacher has {logits.shape[1]} classes")
            logits = logits[:, self.classes]
        size = query.inputs.shape[2:]
        if self.spatial_size is not None and logits.ndim > 2 and logits.shape[2:] != size:
            logits = functional.interpolate(full_precision(logits), list(size), mode=_INTERPOLATION[len(size)])
        return logits

    def _spatial(self, name: str, feature: Tensor, inputs: Tensor) -> Tensor:
        layout = self.layout.get(name) if isinstance(self.layout, Mapping) else self.layout
        return spatial_feature(f"{name} of the teacher", feature, layout, inputs.shape[2:])

    def _taps_of(self, layers: tuple[str, ...], stop: bool) -> FeatureTaps | None:
        if not layers:
            return None
        if (layers, stop) not in self._taps:  # kept: a compiled network is compiled anew for each
            self._taps[layers, stop] = FeatureTaps(self.network, list(layers), stop)
        return self._taps[layers, stop]


class TeacherEnsemble(Teacher):
    r"""Several teachers that answer as one: the weighted mean of their probabilities.

    The logits are :math:`\log \sum_i w_i \, \mathrm{softmax}(t_i)`, whose softmax is that mean. With ``sigmoid`` each
    class is averaged by itself. Hidden layers are read from the first teacher.

    Args:
        teachers: networks, or teachers with settings of their own, such as the folds of a cross validation.
        weights: one positive weight for each; they are divided by their sum. None weighs them alike.
        sigmoid: whether the classes are independent (sigmoid) rather than exclusive.

    Raises:
        ValueError: when there is no teacher, or the weights are not positive or not as many.

    Example:
        >>> folds = [nn.Linear(4, 3) for _ in range(5)]
        >>> teacher = TeacherEnsemble(folds, weights=[2, 1, 1, 1, 1])
        >>> len(teacher.networks())
        5
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module | Teacher],
        weights: Sequence[float] | None = None,
        sigmoid: bool = False,
    ) -> None:
        if not teachers:
            raise ValueError("an ensemble needs one teacher or more")
        weights = [1.0] * len(teachers) if weights is None else list(weights)
        if len(weights) != len(teachers) or not all(0 < weight < math.inf for weight in weights):
            raise ValueError(f"weights must be one positive number for each of {len(teachers)} teachers, got {weights}")
        self.teachers = [as_teacher(teacher) for teacher in teachers]
        self.weights = [weight / sum(weights) for weight in weights]
        self.sigmoid = sigmoid

    def targets(self, query: Query) -> Targets:
        """Ask all of them for their logits, and the first for its features."""
        first = self.teachers[0].targets(query)
        if not query.logits:
            return first
        others = [teacher.targets(query._replace(layers={})) for teacher in self.teachers[1:]]
        logits = torch.stack([full_precision(answer.logits) for answer in (first, *others)])  # type: ignore[arg-type]
        shares = logits.new_tensor(self.weights).log().view(-1, *(1,) * (logits.ndim - 1))
        if self.sigmoid:
            yes, no = ((functional.logsigmoid(sign * logits) + shares).logsumexp(0) for sign in (1, -1))
            return Targets(yes - no, first.features)
        return Targets((logits.log_softmax(2) + shares).logsumexp(0), first.features)

    def networks(self) -> list[nn.Module]:
        """The networks of all teachers."""
        return [network for teacher in self.teachers for network in teacher.networks()]

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise ``ValueError`` unless these layers of the first teacher can be read."""
        self.teachers[0].check_layers(layers)

    def describe(self) -> list[Any]:
        """The settings of all teachers."""
        return [self.weights, self.sigmoid, [teacher.describe() for teacher in self.teachers]]

    def start(self, loader: Iterable, device: torch.device) -> None:
        """Prepare all teachers."""
        for teacher in self.teachers:
            teacher.start(loader, device)


def as_teacher(teacher: nn.Module | Teacher) -> Teacher:
    """A teacher as it is, or a network as a teacher.

    Raises:
        TypeError: when it is neither.
    """
    if isinstance(teacher, Teacher):
        return teacher
    if not isinstance(teacher, nn.Module):
        raise TypeError(f"a teacher is a network or one of monai_fetalkd.teachers, got a {type(teacher).__name__}")
    return LiveTeacher(teacher)


def inferer_settings(inferer: Any) -> dict[str, Any]:
    """What an inferer is told apart by, to be hashed; what it remembers of its calls is private."""
    return {"": type(inferer).__qualname__} | {k: v for k, v in vars(inferer).items() if not k.startswith("_")}


def makes_one_pass(inferer: Any) -> bool:
    """Whether an inferer is known to call the network once, on the whole batch."""
    if isinstance(inferer, PrecisionInferer):
        return makes_one_pass(inferer.inferer)
    return isinstance(inferer, SimpleInferer)


@contextmanager
def eval_only(network: nn.Module) -> Iterator[None]:
    """Eval mode for all modules of a network, each set back to its own mode afterwards."""
    training = [module for module in network.modules() if module.training]
    # by the attribute: exported graphs refuse eval(), and need none
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _plain_attributes(network: nn.Module) -> str:
    """Numbers, strings and the like that the modules of a network hold beside their weights."""
    held = []
    for path, module in network.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            plain_ones = {name: repr(value) for name, value in vars(module).items() if _is_plain(name, value)}
            held.append((path, type(module).__qualname__, sorted(plain_ones.items())))
    return repr(held)


def _is_plain(name: str, value: Any) -> bool:
    if isinstance(value, tuple):
        return not name.startswith("_") and all(_is_plain(name, part) for part in value)
    return not name.startswith("_") and name != "training" and isinstance(value, (bool, int, float, str))


def _listed(value: float | Sequence[float]) -> list[float]:
    return [float(value)] if isinstance(value, (int, float)) else [float(one) for one in value]
