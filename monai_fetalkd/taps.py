"""Taps read the outputs of a network's hidden layers, by name, during one forward pass."""

from __future__ import annotations

import difflib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

__all__ = ["FeatureTaps"]


class FeatureTaps:
    """Capture the outputs of named hidden layers of any module, inside a ``with`` block and nowhere else.

    A name is a path as in :meth:`torch.nn.Module.get_submodule`, such as ``"layer3"`` or ``"layer1.0.conv2"``. Where a
    layer runs several times in the block, as the activation that a residual block shares does, ``"layer1.0.act:0"`` is
    its first call and ``"layer1.0.act:1"`` its second. Of a layer that returns several tensors, ``"layer[0]"`` is the
    first of a tuple and ``"layer[hidden]"`` an entry of a dictionary. The block should hold one forward pass and
    nothing else: several, as an inferer on sliding windows makes them, are refused.

    Outside the block the module is untouched: it can be copied, pickled, scripted and exported, and a validation pass
    leaves no trace in the taps. A copy of the module made inside the block is not tapped. A compiled module may be
    compiled before or after the taps are built, and called with and without them in any order; build the taps once and
    reuse them, as every new instance costs a recompilation. A copy of the taps taps the copied module. Several taps may
    watch one module at the same time, entered and left in any order, also in threads: each captures the forward pass of
    the thread that has entered it.

    Features carry gradients. An output that a later operation overwrites in place, as ``ReLU(inplace=True)`` does to
    the normalisation before it, raises an error rather than pass for what the layer returned. In a compiled module and
    under :class:`torch.inference_mode` overwriting cannot be noticed, so there the taps keep a copy of the output.
    Gradient checkpointing needs ``use_reentrant=False``: the reentrant variant runs its layers without gradients, and
    features taken inside would carry none.

    With ``stop=True`` the forward pass ends as soon as every named layer has run, and in the block the module returns
    the features in place of its output. What comes after is not computed: later layers keep their batch statistics, and
    a layer that runs several times is read at its first call unless its name says which. As the features are then the
    output, ``DistributedDataParallel(..., find_unused_parameters=True)`` sees which layers took no part and exchanges
    the gradients of the others. A compiled module is a graph that cannot be left: it runs to its end, as ever.

    Args:
        module: the network. Its wrappers (``DistributedDataParallel``, ``DataParallel`` on one device,
            ``torch.compile``) are looked through: names are those of the network inside.
        layers: names of the layers to capture, in the order in which :meth:`pop` returns them.
        stop: whether to end the forward pass after the last of them, for those who need no later output.

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

    def __init__(self, module: nn.Module, layers: Sequence[str], stop: bool = False) -> None:
        if isinstance(layers, str) or not layers:
            raise ValueError(f"layers must be a list of one or more layer names, such as ['layer4'], got {layers!r}")
        self._module = _unwrap(module)
        self._stop = stop
        self._active = False
        self._recorders: dict[nn.Module, _Recorder] = {}
        self._taps: dict[str, tuple[_Recorder, _Place]] = {}
        for name in layers:
            if name in self._taps:
                raise ValueError(f"layer {name!r} is named twice in {list(layers)}")
            layer, place = _find(self._module, name)
            self._taps[name] = (self._recorders.setdefault(layer, _Recorder(layer)), place)
        if stop:
            for recorder in self._recorders.values():
                recorder.on_call = self._stop_when_complete
        self._gate = _Gate(self._module, self)
        self._stand_ins: list[_StandIn] = [*self._recorders.values(), self._gate]

    def __enter__(self) -> FeatureTaps:
        if self._active:
            raise RuntimeError("these taps are already capturing: leave their `with` block before entering it again")
        self._active = True
        self._drop()
        for stand_in in self._stand_ins:
            stand_in.attach()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for stand_in in self._stand_ins:
            stand_in.detach()
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
            TypeError: when a layer returned something other than a tensor, or has no such part.
        """
        try:
            return self._read()
        finally:
            self._drop()

    def _read(self) -> dict[str, torch.Tensor]:
        if (passes := len(self._gate.passes)) > 1:
            raise RuntimeError(
                f"the module ran {passes} times in the block: taps read one forward pass. An inferer that works on "
                "windows makes several: crop patches of the window's size in the loader, or tap no layers"
            )
        idle = [name for name, (recorder, _) in self._taps.items() if not recorder.calls]
        if idle:
            raise RuntimeError(
                f"nothing captured at {', '.join(map(repr, idle))}: call the module inside `with taps:` before "
                "each pop(), and tap only layers that its forward pass calls"
            )
        return {name: recorder.read(name, place) for name, (recorder, place) in self._taps.items()}

    def _stop_when_complete(self) -> None:
        if all(len(recorder.calls) > (place.call or 0) for recorder, place in self._taps.values()):
            raise _Stop(self)

    def _drop(self) -> None:
        self._gate.passes.clear()
        for recorder in self._recorders.values():
            recorder.calls.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureTaps, (self._module, list(self._taps), self._stop)


class _Stop(BaseException):
    """Ends a forward pass. It is no ``Exception``, which a network that handles errors of its own might catch."""

    def __init__(self, taps: FeatureTaps) -> None:
        super().__init__()
        self.taps = taps


class _Place(NamedTuple):
    """Which output of a layer is meant: of which of its calls, and which part of it."""

    call: int | None
    parts: tuple[str | int, ...]


class _StandIn(ABC):
    """Stand in for the ``forward`` of one layer, for the thread that has attached it.

    A forward hook would be the usual way, but graphs of ``torch.compile`` do not notice a hook that comes or goes: one
    traced without the hook captures nothing, silently. They do check whether a layer has a ``forward`` of its own.

    Those that one thread has attached to a layer call each other, and the first of them the layer's own ``forward``.
    Any of them may leave first.
    """

    forward: Callable[..., Any]  # what the layer runs while this stands in

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.thread: int | None = None

    @cached_property
    def bound_forward(self) -> Callable[..., Any]:
        """The forward of the layer's class, the same object in every block: compiled graphs may check its identity.

        It is read where nothing stands in for it.
        """
        return self.layer.forward

    def attach(self) -> None:
        with _lock:
            chain = _chains.get(self.layer)
            if chain is None:
                shadowed = vars(self.layer).get("forward")
                chain = _Chain(shadowed, self.bound_forward if shadowed is None else shadowed, [])
                _chains[self.layer] = chain
            self.thread = threading.get_ident()
            self.forward = chain.top(self.thread)
            chain.stand_ins.append(self)
            self.layer.forward = self

    def detach(self) -> None:
        with _lock:
            chain = _chains[self.layer]
            chain.stand_ins.remove(self)
            self.thread = None
            for other in chain.stand_ins:
                if other.forward is self:
                    other.forward = self.forward
            if chain.stand_ins:
                self.layer.forward = chain.stand_ins[-1]
                return
            del _chains[self.layer]
            if chain.shadowed is None:
                del self.layer.forward
            else:
                self.layer.forward = chain.shadowed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # a graph that is traced has no other threads in it
        if torch.compiler.is_compiling() or self.thread == threading.get_ident():
            return self.run(*args, **kwargs)
        with _lock:
            chain = _chains.get(self.layer)
            forward = self.layer.forward if chain is None else chain.top(threading.get_ident())
        return forward(*args, **kwargs)

    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer does in the block."""

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the layer made inside the block gets the layer's plain forward, bound to the copy.
        return getattr, (self.layer, "forward")


class _Chain(NamedTuple):
    """What stands in for one layer."""

    shadowed: Callable[..., Any] | None  # a forward set on the layer itself before, to be put back
    own: Callable[..., Any]  # what the layer runs by itself
    stand_ins: list[_StandIn]

    def top(self, thread: int) -> Callable[..., Any]:
        """What a thread runs: the last stand-in that it has attached, or the layer's own forward."""
        return next((one for one in reversed(self.stand_ins) if one.thread == thread), self.own)


_lock = threading.Lock()
_chains: WeakKeyDictionary[nn.Module, _Chain] = WeakKeyDictionary()


class _Gate(_StandIn):
    """Count the forward passes of the module, and let it return the features where its taps have stopped it."""

    def __init__(self, layer: nn.Module, taps: FeatureTaps) -> None:
        super().__init__(layer)
        self.taps = taps
        self.passes: list[None] = []

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.passes.append(None)
        if torch.compiler.is_compiling():
            return self.forward(*args, **kwargs)
        try:
            return self.forward(*args, **kwargs)
        except _Stop as stop:
            if stop.taps is not self.taps:
                raise
            return self.taps._read()


class _Recorder(_StandIn):
    """Remember what each call of a layer returned."""

    on_call: Callable[[], None] | None = None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.calls: list[Any] = []  # outputs, with a _Kept in place of each tensor

    def run(self, *args: Any, **kwargs: Any) -> Any:
        output = self.forward(*args, **kwargs)
        self.calls.append(_kept(output))
        if not torch.compiler.is_compiling() and self.on_call is not None:
            self.on_call()
        return output

    def read(self, name: str, place: _Place) -> torch.Tensor:
        count, call = len(self.calls), place.call
        if call is None and count > 1:
            raise RuntimeError(
                f"layer {name!r} ran {count} times: say which call, from '{name}:0' to '{name}:{count - 1}'"
            )
        if call is not None and call >= count:
            raise RuntimeError(f"there is no output {name!r}: the layer ran {count} time(s), and calls count from 0")
        kept = self.calls[call or 0]
        for part in place.parts:
            try:
                kept = kept[part]
            except (KeyError, IndexError, TypeError):
                raise TypeError(
                    f"layer {name!r} returned {_described(self.calls[call or 0])}, without [{part}]"
                ) from None
        if not isinstance(kept, _Kept):
            raise TypeError(
                f"layer {name!r} returned {_described(kept)}, not a tensor: name one of its parts, such as "
                f"'{name}[0]', or tap a layer inside or after it"
            )
        if kept.version is not None and kept.tensor._version != kept.version:
            raise RuntimeError(
                f"the output of layer {name!r} was overwritten in place by a later operation (an inplace activation?): "
                "tap a later layer, such as the block that contains it"
            )
        return kept.tensor


class _Kept(NamedTuple):
    tensor: torch.Tensor
    version: int | None  # when it was returned; None where this is a copy


def _kept(output: Any) -> Any:
    """The output of a layer with what tells whether its tensors are overwritten later."""
    if isinstance(output, torch.Tensor):
        if torch.compiler.is_compiling() or output.is_inference():
            return _Kept(output.clone(), None)  # no version is kept here
        return _Kept(output, output._version)
    if isinstance(output, Mapping):
        return {key: _kept(value) for key, value in output.items()}
    if isinstance(output, (tuple, list)):
        return [_kept(value) for value in output]
    return output


def _described(kept: Any) -> str:
    if isinstance(kept, dict):
        return f"a mapping of {', '.join(map(str, kept))}"
    if isinstance(kept, list):
        return f"a tuple or list of {len(kept)}"
    return f"a {'tensor' if isinstance(kept, _Kept) else type(kept).__name__}"


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


_NAME = re.compile(r"(?P<path>[^:\[\]]*)(:(?P<call>[^\[\]]*))?(?P<parts>(\[[^\[\]]*\])*)")


def _find(module: nn.Module, name: str) -> tuple[nn.Module, _Place]:
    """Return the layer that a name stands for, and which of its outputs."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no name of a layer: 'path', 'path:call' or 'path[part]' is")
    path, call = match["path"], match["call"]
    layers = dict(module.named_modules(remove_duplicate=False))
    del layers[""]  # the module itself
    if path not in layers:
        near = difflib.get_close_matches(path, layers) or [child for child, _ in module.named_children()]
        raise ValueError(f"no layer {path!r} in {type(module).__name__}; near names: {', '.join(map(repr, near))}")
    if call is not None and not call.isdecimal():
        raise ValueError(f"the call in {name!r} must be a number counted from 0, as in '{path}:0'")
    parts = re.findall(r"\[([^\[\]]*)\]", match["parts"])
    place = _Place(None if call is None else int(call), tuple(_index(part) for part in parts))
    return layers[path], place


def _index(part: str) -> str | int:
    return int(part) if re.fullmatch(r"-?\d+", part) else part.strip("'\"")
