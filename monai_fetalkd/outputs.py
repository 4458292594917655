"""Which part of what a network returns are its logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["OutputPath", "heads_of", "logits_of", "part_of"]

OutputPath = str | int | Sequence[str | int]


def logits_of(output: Any, path: OutputPath | None, network: str) -> Tensor:
    """Find the logits in what a network has returned.

    Args:
        output: what it returned.
        path: where they are: a key of a mapping, an index of a tuple or list, an attribute, or several of these one
            after the other. None takes a tensor as it is, the only tensor of a container, and an entry called
            ``logits``; anything else is refused.
        network: what to call the network in messages.

    Returns:
        The logits.

    Raises:
        ValueError: when they cannot be told, or there is no such part; the message says what was returned.

    Example:
        >>> import torch
        >>> logits_of((torch.zeros(2, 3), None), None, "teacher").shape
        torch.Size([2, 3])
        >>> logits_of({"a": [torch.zeros(1), torch.zeros(2, 3)]}, ["a", 1], "teacher").shape
        torch.Size([2, 3])
    """
    if path is not None:
        found = part_of(output, path, network)
        if not isinstance(found, Tensor):
            raise ValueError(f"the output {path!r} of the {network} is {_described(found)}, not a tensor of logits")
        return found
    if isinstance(output, Tensor):
        return output
    parts = _parts(output)
    if isinstance(parts.get("logits"), Tensor):
        return parts["logits"]
    tensors = [part for part in parts.values() if isinstance(part, Tensor)]
    if len(tensors) == 1 and not any(_parts(part) for part in parts.values()):
        return tensors[0]
    raise ValueError(
        f"the {network} returned {_described(output)}: say which part of it are the logits, as its `output` "
        f"(such as {next(iter(parts), 0)!r})"
    )


def part_of(output: Any, path: OutputPath | None, network: str) -> Any:
    """Follow a path into what a network has returned, see :func:`logits_of`; None leads nowhere.

    Raises:
        ValueError: when there is no such part.
    """
    found = output
    for step in [path] if isinstance(path, (str, int)) else path or ():
        found = _part(found, step, output, network)
    return found


def heads_of(output: Any, image_dims: int) -> list[Tensor] | None:
    """The logits of all heads of a network with deep supervision, the main one first.

    Args:
        output: a list or tuple of logits, or one tensor with the heads as its second axis, as MONAI's ``DynUNet``
            stacks them.
        image_dims: number of axes of the network's input.

    Returns:
        The heads; None where the output is that of one head.
    """
    if isinstance(output, Tensor):
        return list(output.unbind(1)) if output.ndim == image_dims + 1 else None
    if isinstance(output, (list, tuple)) and len(output) > 1 and all(isinstance(head, Tensor) for head in output):
        return list(output) if len({head.shape[:2] for head in output}) == 1 else None
    return None


def _parts(output: Any) -> dict[Any, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, (list, tuple)):
        return dict(enumerate(output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {}


def _part(found: Any, step: str | int, output: Any, network: str) -> Any:
    parts = _parts(found)
    if isinstance(step, int) and isinstance(found, (list, tuple)) and -len(found) <= step < len(found):
        return found[step]
    if step in parts:
        return parts[step]
    if isinstance(step, str) and hasattr(found, step):
        return getattr(found, step)
    raise ValueError(f"the {network} returned {_described(output)}, in which there is no {step!r}")


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    parts = _parts(output)
    if not parts:
        return f"a {type(output).__name__}"
    shown = ", ".join(
        f"{key}: {tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__}"
        for key, part in list(parts.items())[:6]
    )
    return f"a {type(output).__name__} of {len(parts)} ({shown})"
