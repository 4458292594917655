"""Taps read the outputs of a network's hidden layers, by name, during one forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any

import torch
from torch import nn

__all__ = ["FeatureTaps"]


class FeatureTaps:
    """Capture the outputs of named hidden layers of any module, inside a ``with`` block and nowhere else.

    A name is a path as in :meth:`torch.nn.Module.get_submodule`, such as ``"layer3"`` or ``"layer1.0.conv2"``. Where a
    layer runs several times in the block, as the activation that a residual block shares does, ``"layer1.0.act:0"`` is
    its first call and ``"layer1.0.act:1"`` its second. The block should hold one forward pass and nothing else.

    Outside the block the module is untouched: it can be copied, pickled, scripted and exported, and a validation pass
    leaves no trace in the taps. A copy of the module made inside the block is not tapped. A compiled module may be
    compiled before or after the taps are built, and called with and without them in any order; build the taps once and
    reuse them, as every new instance costs a recompilation. A copy of the taps taps the copied module.

    Features carry gradients. An output that a later operation overwrites in place, as ``ReLU(inplace=True)`` does to
    the normalisation before it, raises an error rather than pass for what the layer returned. In a compiled module and
    under :class:`torch.inference_mode` overwriting cannot be noticed, so there the taps keep a copy of the output.
    Gradient checkpointing needs ``use_reentrant=False``: the reentrant variant runs its layers without gradients, and
    features taken inside would carry none.

    Args:
        module: the network. Its wrappers (``DistributedDataParallel``, ``DataParallel`` on one device,
            ``torch.compile``) are looked through: names are those of the network inside.
        layers: names of the layers to capture, in the order in which :meth:`pop` returns them.

    Raises:
        ValueError: when ``layers`` is a string, is empty, repeats a name or names no layer of ``module``, and when
            ``module`` is a ``DataParallel`` over several devices.
        RuntimeError: when a block of the taps is entered inside another of its own.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> taps = FeatureTaps(net, ["0", "1"])
        >>> with taps:
        ...     logits = net(torch.ones(5, 4))
        >>> {name: tuple(feature.shape) for name, feature in taps.pop().items()}
        {'0': (5, 3), '1': (5, 3)}
    """

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        if isinstance(layers, str) or not layers:
            raise ValueError(f"layers must be a list of one or more layer names, such as ['layer4'], got {layers!r}")
        self._module = _unwrap(module)
        self._active = False
        self._recorders: dict[nn.Module, _Recorder] = {}
        self._taps: dict[str, tuple[_Recorder, int | None]] = {}
        for name in layers:
            if name in self._taps:
                raise ValueError(f"layer {name!r} is named twice in {list(layers)}")
            layer, call = _find(self._module, name)
            self._taps[name] = (self._recorders.setdefault(layer, _Recorder(layer)), call)

    def __enter__(self) -> FeatureTaps:
        if self._active:
            raise RuntimeError("these taps are already capturing: leave their `with` block before entering it again")
        self._active = True
        self._drop()
        for recorder in self._recorders.values():
            recorder.attach()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for recorder in self._recorders.values():
            recorder.detach()
        self._active = False
        if exc_type is not None:
            self._drop()

    def pop(self) -> dict[str, torch.Tensor]:
        """Hand over the captured features and keep none of them.

        Returns:
            The output of each layer, as the layer returned it and on its autograd graph, under the names given and in
            their order.

        Raises:
            RuntimeError: when a layer did not run in the block or its output was popped before, when it ran several
                times and its name does not say which call, when it ran less often than its name says, and when its
                output has been overwritten in place since.
            TypeError: when a layer returned something other than a tensor.
        """
        try:
            idle = [name for name, (recorder, _) in self._taps.items() if not recorder.calls]
            if idle:
                raise RuntimeError(
                    f"nothing captured at {', '.join(map(repr, idle))}: call the module inside `with taps:` before "
                    "each pop(), and tap only layers that its forward pass calls"
                )
            return {name: recorder.read(name, call) for name, (recorder, call) in self._taps.items()}
        finally:
            self._drop()

    def _drop(self) -> None:
        for recorder in self._recorders.values():
            recorder.calls.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureTaps, (self._module, list(self._taps))


class _Recorder:
    """Stand in for the ``forward`` of one layer, and remember what each call returned.

    A forward hook would be the usual way, but graphs of ``torch.compile`` do not notice a hook that comes or goes: one
    traced without the hook captures nothing, silently. They do check whether a layer has a ``forward`` of its own.
    """

    forward: Callable[..., Any]  # what the layer runs while the recorder stands in
    shadowed: Callable[..., Any] | None  # what to put back: a forward set on the layer itself, by other taps perhaps

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.calls: list[tuple[Any, int | None]] = []  # outputs, each with its version when it was returned

    @cached_property
    def bound_forward(self) -> Callable[..., Any]:
        """The forward of the layer's class, the same object in every block: compiled graphs may check its identity."""
        return self.layer.forward

    def attach(self) -> None:
        self.shadowed = vars(self.layer).get("forward")
        self.forward = self.bound_forward if self.shadowed is None else self.shadowed
        self.layer.forward = self

    def detach(self) -> None:
        if self.shadowed is None:
            del self.layer.forward
        else:
            self.layer.forward = self.shadowed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.forward(*args, **kwargs)
        kept, version = output, None
        if isinstance(output, torch.Tensor):
            if torch.compiler.is_compiling() or output.is_inference():
                kept = output.clone()  # no version is kept here to tell whether the output is overwritten later
            else:
                version = output._version
        self.calls.append((kept, version))
        return output

    def read(self, name: str, call: int | None) -> torch.Tensor:
        count = len(self.calls)
        if call is None and count > 1:
            raise RuntimeError(
                f"layer {name!r} ran {count} times: say which call, from '{name}:0' to '{name}:{count - 1}'"
            )
        if call is not None and call >= count:
            raise RuntimeError(f"there is no output {name!r}: the layer ran {count} time(s), and calls count from 0")
        output, version = self.calls[call or 0]
        if not isinstance(output, torch.Tensor):
            raise TypeError(
                f"layer {name!r} returned a {type(output).__name__}, not a tensor: tap a layer inside or after it"
            )
        if version is not None and output._version != version:
            raise RuntimeError(
                f"the output of layer {name!r} was overwritten in place by a later operation (an inplace activation?): "
                "tap a later layer, such as the block that contains it"
            )
        return output

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the layer made inside the block gets the layer's plain forward, bound to the copy.
        return getattr, (self.layer, "forward")


def _unwrap(module: nn.Module) -> nn.Module:
    """Return the network inside the wrappers that put a prefix before the names of its layers."""
    while True:
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ValueError("taps cannot follow a DataParallel over several devices: use DistributedDataParallel")
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif isinstance(inside := getattr(module, "_orig_mod", None), nn.Module):  # torch.compile
            module = inside
        else:
            return module


def _find(module: nn.Module, name: str) -> tuple[nn.Module, int | None]:
    """Return the layer that a name stands for, and which of its calls, if the name says so."""
    path, colon, call = name.partition(":")
    layers = dict(module.named_modules(remove_duplicate=False))
    del layers[""]  # the module itself
    if path not in layers:
        near = difflib.get_close_matches(path, layers) or [child for child, _ in module.named_children()]
        raise ValueError(f"no layer {path!r} in {type(module).__name__}; near names: {', '.join(map(repr, near))}")
    if colon and not call.isdecimal():
        raise ValueError(f"the call in {name!r} must be a number counted from 0, as in '{path}:0'")
    return layers[path], int(call) if colon else None
