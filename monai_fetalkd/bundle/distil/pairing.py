"""Which layers of two networks stand at the same place: the last of each resolution, on the way down and up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from monai.networks.layers import SkipConnection
from monai.networks.utils import eval_mode
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from monai_fetalkd.layouts import spatial_feature

__all__ = ["pair_layers", "run_once"]


# what a U-Net hands on beside its own features, and what only adds a margin
_NO_FEATURES = (SkipConnection, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)


class _Output(NamedTuple):
    """What a layer returned, in the order in which layers have finished."""

    names: tuple[str, ...]  # a module may stand in several places
    tensor: Tensor
    version: int

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape[2:])


def pair_layers(student: nn.Module, teacher: nn.Module, image_shape: Sequence[int]) -> list[tuple[str, str]]:
    """Pair the hidden layers of two networks by running both once.

    The way down ends at the smallest resolution. For each resolution there, the last layer is taken, and where the
    network goes up again, the last layer of the way up; the head, which returns the network's output, is left out.
    Layers that run several times, whose output is overwritten in place or has no positions are none to tap.

    Args:
        student: the student.
        teacher: the teacher.
        image_shape: channels and size of an image.

    Returns:
        Names of the layers of student and teacher, from the first resolution down to the last one up.

    Raises:
        ValueError: when there is no resolution at which both have a layer.

    Example:
        >>> from monai.networks.nets import BasicUNet
        >>> for pair in pair_layers(*(BasicUNet(2, 1, 2, [width] * 6) for width in (4, 8)), (1, 32, 32)):
        ...     print(*pair)
        conv_0 conv_0
        down_1 down_1
        down_2 down_2
        down_3 down_3
        down_4 down_4
        upcat_4 upcat_4
        upcat_3 upcat_3
        upcat_2 upcat_2
        upcat_1 upcat_1
    """
    ways = [_places(network, image_shape) for network in (student, teacher)]
    pairs = [(ways[0][place], ways[1][place]) for place in ways[0] if place in ways[1]]
    if not pairs:
        raise ValueError(
            f"Student and teacher have no layers of the same size for an image of {tuple(image_shape)}: the student "
            f"has {_sizes(ways[0])}, the teacher {_sizes(ways[1])}."
        )
    return pairs


def run_once(network: nn.Module, image_shape: Sequence[int]) -> tuple[Any, list[_Output]]:
    """What a network and all of its layers return for one image, in eval mode.

    On the meta device nothing is computed, and only shapes are true.

    Args:
        network: the network.
        image_shape: channels and size of an image.

    Returns:
        Its output, and those of the layers that return one tensor and run once.
    """
    outputs: list[_Output] = []
    names: dict[nn.Module, tuple[str, ...]] = {}
    for name, layer in network.named_modules(remove_duplicate=False):
        names[layer] = (*names.get(layer, ()), name)

    def keep(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(_Output(names[layer], output, output._version))

    hooks = [layer.register_forward_hook(keep) for layer in names if layer is not network]
    try:
        with eval_mode(network):
            output = network(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    calls = Counter(one.names for one in outputs)
    return output, [one for one in outputs if calls[one.names] == 1]


def _places(network: nn.Module, image_shape: Sequence[int]) -> dict[tuple[str, tuple[int, ...]], str]:
    """The layer of each place, which is a way and a size."""
    output, found = run_once(network, image_shape)
    head = _head(found, output)
    found = [one for one in found if not isinstance(network.get_submodule(one.names[0]), _NO_FEATURES)]
    spatial = [feature for one in found if (feature := _spatial(network, one, image_shape)) is not None]
    if not spatial:
        return {}
    smallest = min((one.size for one in spatial), key=math.prod)
    turn = next(index for index, one in enumerate(spatial) if one.size == smallest)
    parts = _Parts(spatial, spatial[turn])
    lasts: dict[tuple[str, tuple[int, ...]], str] = {}
    for index, one in enumerate(spatial):
        if one.tensor._version != one.version or any(head(name) for name in one.names) or parts.changes_size(one):
            continue
        way = "down" if index < turn or one.size == smallest else "up"
        lasts.pop((way, one.size), None)  # so that the order is that of the last
        lasts[way, one.size] = one.names[0]
    return lasts


def _spatial(network: nn.Module, one: _Output, image_shape: Sequence[int]) -> _Output | None:
    """The output as channels first; None where it has no positions, or they cannot be told from its shape."""
    if one.tensor.shape[:1] != (1,) or (len(set(one.tensor.shape[1:])) == 1 and _is_transformer(network, one)):
        return None  # windows, or as many channels as positions along an axis: which is which cannot be told
    try:
        feature = spatial_feature(one.names[0], one.tensor, None, image_shape[1:])
    except ValueError:
        return None
    one = one._replace(tensor=feature)
    return one if feature.ndim == len(image_shape) + 1 and math.prod(one.size) > 1 else None


def _is_transformer(network: nn.Module, one: _Output) -> bool:
    """Whether a layer, or the part that it is in, works on channels last."""
    path = one.names[0]
    kinds = [
        {type(layer) for layer in network.get_submodule(name).modules()} for name in (path, path.rpartition(".")[0])
    ]
    return any(kind & {nn.Linear, nn.LayerNorm} and not kind & {nn.Conv1d, nn.Conv2d, nn.Conv3d} for kind in kinds)


def _head(found: Sequence[_Output], output: Any) -> Callable[[str], bool]:
    """Tells whether a layer is the head: it returns the network's output, or is inside the part that only does that."""
    returned = {id(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)}
    ends = {name for one in found if id(one.tensor) in returned for name in one.names}
    smallest = min((math.prod(one.size) for one in found if one.tensor.ndim > 2 and math.prod(one.size) > 1), default=0)
    bottom = [name for one in found if math.prod(one.size) == smallest for name in one.names]
    heads = {end for end in ends if not any(_inside(name, end) for name in bottom)}
    return lambda name: name in ends or any(_inside(name, end) for end in heads)


class _Parts:
    """Which parts of a network are a step from one size to another, rather than a way through several."""

    def __init__(self, spatial: Sequence[_Output], turn: _Output) -> None:
        self._turn = turn
        self._outputs = {one.names[0]: one.size for one in spatial}
        self._sizes: dict[str, set[tuple[int, ...]]] = {}
        for one in spatial:
            for name in (one.names[0], *_parents(one.names[0])):
                self._sizes.setdefault(name, set()).add(one.size)

    def changes_size(self, one: _Output) -> bool:
        """Whether a layer is inside a step that returns another size, as the first half of a transition."""
        steps = [name for name in _parents(one.names[0]) if self._outputs.get(name, one.size) != one.size]
        return any(not self._is_way(name) for name in steps)

    def _is_way(self, name: str) -> bool:
        turns = any(_inside(turning, name) for turning in self._turn.names) and self._outputs[name] != self._turn.size
        return turns or len(self._sizes[name]) > 2


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _inside(name: str, parent: str) -> bool:
    return name.startswith(f"{parent}.")


def _sizes(places: dict[tuple[str, tuple[int, ...]], str]) -> str:
    return ", ".join(" x ".join(map(str, size)) for _, size in places) or "none"
