"""The teacher: what a bundle trains, on what, and how it is judged, found through its configs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
from monai.bundle.scripts import _get_fake_spatial_shape
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointLoader
from packaging.version import InvalidVersion, Version
from torch import nn

from monai_fetalkd.bundle.stages import training_stage
from monai_fetalkd.utils.machine import first_line

from .config import Component, Config, read_file

__all__ = [
    "TeacherBundle",
    "build_network",
    "checkpoint_path",
    "network_definition",
    "read_bundle",
    "read_configs",
    "removed_arguments",
]

_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class TeacherBundle:
    """A bundle with a trained network.

    Attributes:
        root: its folder.
        train: its training config.
        inference: its inference config.
        metadata: content of its ``metadata.json``.
        trainer: the trainer, in ``train``.
        evaluator: the evaluator that validates, in ``train``.
        definition: the definition of the network, in ``inference``.
        trained: the definition in ``train``, or where that takes it from ``inference`` too, the same.
        weights: the trained weights.
        image_shape: channels and size of the network's input.
    """

    root: Path
    train: Config
    inference: Config
    metadata: dict[str, Any]
    trainer: Component
    evaluator: Component
    definition: Component
    trained: Component
    weights: Path
    image_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.resolve().name

    @property
    def version(self) -> str:
        """Version of the bundle."""
        return str(self.metadata.get("version", "unknown"))


def read_bundle(root: Path) -> TeacherBundle:
    """Find network, data, loss, metric and weights of a bundle, whatever their ids are.

    The trainer is the component whose class is MONAI's ``SupervisedTrainer`` or derived from it; its arguments lead to
    everything else. The network is followed through references and expressions to its definition.

    Args:
        root: folder of the bundle; its modules must be importable, see :func:`~.config.importable`.

    Returns:
        What has been found.

    Raises:
        FileNotFoundError: when there is no such bundle, no training or inference config, or no weights.
        ValueError: when a config cannot be read, is of a newer MONAI, or has no such trainer, evaluator or network.
    """
    train, inference = read_configs(root)
    metadata = _metadata(root)
    trainer, evaluator = _trainer(train), _evaluator(train)
    if inspect.isclass(evaluator.target) and "key_val_metric" not in evaluator.arguments:
        raise ValueError(
            f"The evaluator '{evaluator.id}' of '{train.path}' has no key_val_metric, by which the best epoch is kept."
        )
    definition = network_definition(inference, inference)
    return TeacherBundle(
        root,
        train,
        inference,
        metadata,
        trainer,
        evaluator,
        definition,
        _definition(train, trainer) or definition,
        checkpoint_path(root, inference),
        _image_shape(root / "configs" / "metadata.json", metadata),
    )


def read_configs(root: Path) -> tuple[Config, Config]:
    """The configs of a bundle for training and for inference.

    Raises:
        FileNotFoundError: when there is no such bundle, or it lacks one of them.
        ValueError: when one cannot be read.
    """
    if not (root / "configs").is_dir():
        around = (root.absolute().parent, *sorted(root.iterdir())) if root.is_dir() else ()
        near = [path for path in around if (path / "configs").is_dir()]
        hint = f"'{near[0]}'" if len(near) == 1 else "the folder of a bundle, which holds 'configs',"
        raise FileNotFoundError(f"There is no bundle '{root}': give {hint} as --teacher.")
    train, inference = (Config(_config_file(root, kind), root) for kind in ("train", "inference"))
    return train, inference


def network_definition(config: Config, inference: Config) -> Component:
    """The definition of the network that a config trains or runs.

    Args:
        config: the config.
        inference: the inference config, whose definition is taken where ``config`` reads it from there.

    Raises:
        ValueError: when it has none.
    """
    found = _definition(config, _evaluator(config)) or _definition(inference, _evaluator(inference))
    if found is None:
        raise ValueError(f"The network of '{inference.path}' has no definition with a _target_ to make a student from.")
    return found


def build_network(component: Component, **changes: Any) -> nn.Module:
    """The network of a definition, on the CPU.

    Args:
        component: the definition.
        changes: arguments to replace.

    Returns:
        The network, with its initial weights.

    Raises:
        ImportError: when its class cannot be imported.
        ValueError: when its class refuses the arguments.
    """
    path = component.config.path
    if component.target is None:
        reason = f" ({component.problem})" if component.problem else ""
        raise ImportError(
            f"The network '{component.name}' of '{path}' cannot be imported{reason}: install what it needs, or correct "
            "its name."
        )
    try:
        arguments = {key: component.value(key) for key in component.arguments if key not in changes}
        network = component.target(**_understood(component.target, {**arguments, **changes}))
    except Exception as error:  # a network may refuse its arguments in any way
        raise ValueError(
            f"The network '{component.name}' of '{path}' cannot be made with MONAI {monai.__version__}: "
            f"{first_line(error)}."
        ) from error
    if not isinstance(network, nn.Module) or not any(True for _ in network.parameters()):
        raise ValueError(f"'{component.id}' of '{path}' makes a {type(network).__name__}, no network with weights.")
    return network


def removed_arguments(component: Component) -> list[str]:
    """Arguments that MONAI's class had once and knows no more, without which the network is the same."""
    parameters = inspect.signature(component.target).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return []
    return [key for key in component.arguments if key not in parameters and key in _REMOVED.get(component.name, ())]


# the size of the image, which SwinUNETR needs no more since MONAI 1.5
_REMOVED = {"SwinUNETR": ("img_size",), "monai.networks.nets.SwinUNETR": ("img_size",)}


def _understood(target: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    name = getattr(target, "__name__", "")
    return {key: value for key, value in arguments.items() if key not in _REMOVED.get(name, ())}


def _config_file(root: Path, kind: str) -> Path:
    for suffix in _SUFFIXES:
        path = root / "configs" / f"{kind}{suffix}"
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"The bundle '{root}' has no {'training' if kind == 'train' else kind} config 'configs/{kind}.json' (or .yaml)."
    )


def _metadata(root: Path) -> dict[str, Any]:
    path = root / "configs" / "metadata.json"
    if not path.is_file():
        raise FileNotFoundError(f"The bundle '{root}' has no 'configs/metadata.json', which says the network's input.")
    metadata = read_file(path)
    needed = str(metadata.get("monai_version"))
    with suppress(InvalidVersion):
        newer = Version(needed).release[:2] > Version(monai.__version__).release[:2]
        if newer:
            raise ValueError(
                f"The bundle '{root}' is of MONAI {needed}, newer than {monai.__version__} here: update MONAI."
            )
    return metadata


def _trainer(train: Config) -> Component:
    found = [one for one in train.components() if _is(one, SupervisedTrainer, training_stage)]
    if not found:
        others = [one.name for one in train.components() if one.id.split("#")[-1] == "trainer"]
        what = f"its trainer is {others[0]}" if others else "it has none"
        raise ValueError(
            f"'{train.path}' has no trainer of MONAI's class SupervisedTrainer ({what}): only what learns a label of "
            "each image or voxel can be distilled."
        )
    trainer = next((one for one in found if one.id == "train#trainer"), found[0])
    if "iteration_update" in trainer.arguments:
        raise ValueError(
            f"The trainer of '{train.path}' has an iteration_update of its own, as networks that take clicks or points "
            "of a user have: distillation would bypass it."
        )
    missing = [key for key in ("network", "train_data_loader", "loss_function") if key not in trainer.arguments]
    if missing:
        raise ValueError(f"The trainer '{trainer.id}' of '{train.path}' has no {' and no '.join(missing)}.")
    return trainer


def _evaluator(config: Config) -> Component:
    found = [one for one in config.components() if _is(one, SupervisedEvaluator) or one.id == "validate#evaluator"]
    found = [one for one in found if "network" in one.arguments]
    if not found:
        raise ValueError(f"'{config.path}' has no SupervisedEvaluator with a network.")
    return next((one for one in found if one.id in ("validate#evaluator", "evaluator")), found[0])


def _definition(config: Config, engine: Component) -> Component | None:
    found = config.component(engine.arguments["network"])
    return found if found is not None and _is_network(found) else None


def _is(component: Component, *kinds: Any) -> bool:
    target = component.target
    return any(
        target is kind or (inspect.isclass(target) and inspect.isclass(kind) and issubclass(target, kind))
        for kind in kinds
    )


def _is_network(component: Component) -> bool:
    """Whether it may make a network: a class of modules, a function, or something that cannot be imported."""
    return not inspect.isclass(component.target) or issubclass(component.target, nn.Module)


def checkpoint_path(root: Path, inference: Config) -> Path:
    """The file from which inference loads the weights; ``models/model.pt`` where it does not say."""
    for loader in inference.components():
        if _is(loader, CheckpointLoader) and "load_path" in loader.arguments:
            return Path(inference.value(loader.arguments["load_path"]))
    return root / "models" / "model.pt"


def _image_shape(path: Path, metadata: Mapping[str, Any]) -> tuple[int, ...]:
    form = metadata.get("network_data_format")
    inputs = form.get("inputs") if isinstance(form, Mapping) else None
    tensors = [
        one
        for one in (inputs.values() if isinstance(inputs, Mapping) else ())
        if isinstance(one, Mapping) and "spatial_shape" in one
    ]
    if len(tensors) > 1:
        raise ValueError(
            f"The network takes {len(tensors)} images by 'network_data_format' of '{path}'; one that takes one image "
            "can be distilled."
        )
    try:
        size = tensors[0]["spatial_shape"]
        if not isinstance(size, list):
            raise TypeError(f"the size is {size!r}, not a list")
        size = [int(one) if str(one).isdigit() else one for one in size]
        return (int(tensors[0]["num_channels"]), *_get_fake_spatial_shape(size, p=4, n=4, any=96))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        reason = f": {first_line(error)}" if tensors else ""
        raise ValueError(
            f"'{path}' must say what the network takes: 'num_channels' and 'spatial_shape' of an image, in 'inputs' of "
            f"'network_data_format'{reason}."
        ) from error
