"""Checkpoints written whole, read safely, and told plainly where they do not fit."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor, nn

from monai_fetalkd.utils.files import written_whole
from monai_fetalkd.utils.machine import machine_error

__all__ = [
    "copy_weights",
    "fit_names",
    "is_torchscript",
    "load_weights",
    "read_checkpoint",
    "read_state_dict",
    "save_weights",
]

# where a file holds several state dicts, the one that comes first here
_PREFERRED = ("model", "state_dict", "model_state_dict", "network", "network_state_dict", "net")
_SHOWN = 8


def load_weights(network: nn.Module, path: str | PathLike[str]) -> None:
    """Load a checkpoint of exactly this network, wherever it was trained and whatever it was wrapped in there.

    Args:
        network: the network to fill, in place.
        path: file as for :func:`read_state_dict`, with names as for :func:`fit_names`. A network that is TorchScript
            takes its weights from TorchScript.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read as weights, or belongs to another network; the message lists what differs and
            the network stays as it was.

    Example:
        >>> import os, tempfile
        >>> source, copy = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> path = os.path.join(tempfile.mkdtemp(), "model.pt")
        >>> torch.save(source.state_dict(), path)
        >>> load_weights(copy, path)
        >>> torch.equal(copy.weight, source.weight)
        True
    """
    if isinstance(network, torch.jit.ScriptModule) and is_torchscript(path):
        weights = torch.jit.load(path, map_location="cpu").state_dict()
    else:
        weights = read_state_dict(path)
    copy_weights(network, weights, path)


def is_torchscript(path: str | PathLike[str]) -> bool:
    """Whether a file is a TorchScript archive, which holds a network and its weights; it is not loaded."""
    return zipfile.is_zipfile(path) and "constants.pkl" in _names_in(path)


@idist.one_rank_only()
def save_weights(network: nn.Module, path: str | PathLike[str]) -> None:
    """Write the state dict of a network, whole or not at all; an older file is replaced.

    Of several ranks, the first writes.

    Args:
        network: the network.
        path: the file to write; its folder is made where it does not exist.
    """
    # an open file, not its name: torch tells a full disk in its own words otherwise
    with written_whole(path) as temporary, temporary.open("wb") as file:
        torch.save(network.state_dict(), file)


def read_checkpoint(path: str | PathLike[str], map_location: str | torch.device = "cpu") -> Any:
    """Read a file that ``torch.save`` wrote; only tensors and plain Python values are unpickled, never code.

    Args:
        path: the file.
        map_location: device for the tensors.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, of another format, or holds other objects; the message says how to convert it.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise FileNotFoundError(f"The checkpoint '{path}' {what}: train its stage first or give its path.")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        if (of_the_machine := machine_error(error)) is not None:  # the file is not to blame
            raise of_the_machine from None
        # torch answers a damaged, foreign or unsafe file with half a dozen types of exception, and pages of advice to
        # run the code in it, which must not be passed on
        raise ValueError(f"The file '{path}' cannot be read as a checkpoint: {_reason(Path(path), error)}") from None


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read the weights of one network.

    The file is a state dict, or holds one as MONAI's handlers, Lightning, timm and most training scripts write it:
    under some key, or under a key of a dictionary in it. Of several, the one under ``"model"`` is taken, else
    ``"state_dict"``, ``"model_state_dict"``, ``"network"``, ``"network_state_dict"`` or ``"net"``, in this order.

    Args:
        path: the file.

    Returns:
        Tensor by name, on the CPU.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, or holds no state dict, or several of other names; the message lists what it
            holds.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "checkpoint.pt")
        >>> torch.save({"epoch": 3, "net": nn.Linear(2, 2).state_dict(), "ema": nn.Linear(2, 2).state_dict()}, path)
        >>> list(read_state_dict(path))
        ['weight', 'bias']
    """
    content = read_checkpoint(path)
    if _is_state_dict(content) or (isinstance(content, Mapping) and not content):
        return dict(content)
    found = dict(_state_dicts(content))
    if not found:
        raise ValueError(f"The file '{path}' holds no state dict of tensors, but {_listed(content)}.")
    keys = sorted(found, key=lambda key: _PREFERRED.index(key[-1]) if key[-1] in _PREFERRED else len(_PREFERRED))
    if len(found) > 1 and keys[0][-1] not in _PREFERRED:
        choices = ", ".join("".join(f"['{part}']" for part in key) for key in keys)
        raise ValueError(
            f"The file '{path}' holds several state dicts, under {choices}: save the right one to a file of its own, "
            "with torch.save(torch.load(path)[key], other_path)."
        )
    return dict(found[keys[0]])


def fit_names(weights: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Name weights as a network does, whatever wrapper either was in.

    A prefix that all weights share and the network lacks is taken off, again and again: ``module.`` of
    ``DistributedDataParallel``, ``_orig_mod.`` of ``torch.compile``, ``model.`` or ``net.`` of a Lightning module. A
    prefix of all names of the network, which is then in a wrapper itself, is put before them.

    Args:
        weights: a state dict.
        names: the names of the network's own state dict.

    Returns:
        The same tensors under other names, where these fit better.

    Example:
        >>> list(fit_names({"module._orig_mod.fc.weight": torch.ones(1)}, ["fc.weight"]))
        ['fc.weight']
    """
    fitted = dict(weights)
    while (prefix := _shared_prefix(fitted)) and not any(name.startswith(prefix) for name in names):
        fitted = {name.removeprefix(prefix): value for name, value in fitted.items()}
    inner, wrapper = set(names), ""
    while inner != set(fitted) and (prefix := _shared_prefix(inner)):
        wrapper += prefix
        inner = {name.removeprefix(prefix) for name in inner}
    if wrapper and inner == set(fitted):
        return {wrapper + name: value for name, value in fitted.items()}
    return fitted


def copy_weights(network: nn.Module, weights: Mapping[str, Tensor], path: str | PathLike[str]) -> None:
    """Copy weights into a network whose names and shapes they match to the last one.

    Args:
        network: the network to fill, in place.
        weights: a state dict, with names as for :func:`fit_names`.
        path: where the weights come from, for the message.

    Raises:
        ValueError: when a name or shape differs; the message lists the differences and the network stays as it was.
    """
    own = network.state_dict()
    weights = fit_names(weights, own)
    differences = [f"{name} is missing" for name in own if name not in weights]
    differences += [f"{name} is unknown" for name in weights if name not in own]
    differences += [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and isinstance(value, Tensor) and weights[name].shape != value.shape
    ]
    if differences:
        more = len(differences) - _SHOWN
        shown = "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise ValueError(
            f"The checkpoint '{path}' belongs to another network than this {type(network).__name__}: {shown}."
        )
    network.load_state_dict(weights)


def _is_state_dict(value: Any) -> bool:
    # a module may keep an extra state of any kind beside its tensors
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(part, Tensor) or name.endswith("_extra_state") for name, part in value.items())
    )


def _state_dicts(content: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]:
    """State dicts in a dictionary, or in the dictionaries in it; no deeper, where optimizers keep their tensors."""
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if isinstance(key, str) and _is_state_dict(value):
            yield (*above, key), value
        elif isinstance(key, str) and not above:
            yield from _state_dicts(value, (key,))


def _listed(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    parts = [f"'{key}' ({_kind(value)})" for key, value in list(content.items())[:_SHOWN]]
    more = [f"{len(content) - _SHOWN} more"] if len(content) > _SHOWN else []
    return ", ".join([*parts, *more])


def _kind(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"{kind} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{kind} of {', '.join(map(repr, list(value)[:3]))}{', ...' if len(value) > 3 else ''}"
    return kind


def _shared_prefix(names: Collection[str]) -> str:
    first = {name.partition(".")[0] if "." in name else "" for name in names}
    return f"{first.pop()}." if len(first) == 1 and "" not in first else ""


def _names_in(path: str | PathLike[str]) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {name.rpartition("/")[2] for name in archive.namelist()}


def _reason(path: Path, error: Exception) -> str:
    """Why a file is no checkpoint, in one sentence with what to do."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as unreadable:
        return str(unreadable)
    if not head:
        return "it is empty."
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS to the file: fetch the file itself, with git lfs pull."
    if head[8:9] == b"{":
        return "it is in the safetensors format: save what safetensors.torch.load_file reads from it with torch.save."
    if head.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            return "it is damaged, its end is missing: copy or download it again."
        names = _names_in(path)
        if "constants.pkl" in names:
            return "it is a TorchScript archive: save torch.jit.load(path).state_dict() with torch.save."
        if "archive_format" in names:
            return "it is a program of torch.export: save torch.export.load(path).state_dict with torch.save."
        if "data.pkl" not in names:
            return "it is an archive of another kind."
    if isinstance(error, UnpicklingError):
        objects = re.findall(r"GLOBAL (\S+)", str(error))  # their names stand nowhere else in the error
        if not objects:
            return "it is of another format, not written by torch.save."
        return (
            f"it holds Python objects ({objects[0]}), and reading those could run code. Where you trust the file, load "
            "it with the program that wrote it, and save network.state_dict() alone with torch.save."
        )
    return f"it is damaged or of another format ({str(error).splitlines()[0] if str(error) else type(error).__name__})."
