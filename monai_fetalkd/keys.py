"""Digests that tell whether what a cache on disk was made from is still the same."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from torch import Tensor

from monai_fetalkd._tensor import plain

__all__ = ["hash_of_data", "hash_of_transforms"]


def hash_of_transforms(transforms: Sequence[Callable]) -> str:
    """Hash transforms with all their settings, the versions of MONAI and numpy, and the source code of this package.

    Args:
        transforms: the transforms.

    Returns:
        A SHA-256 in hexadecimal digits.

    Raises:
        ValueError: when a transform cannot be pickled.
    """
    digest = hashlib.sha256(f"{monai.__version__} {np.__version__}".encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    digest.update(_pickled(list(transforms)))
    return digest.hexdigest()


def hash_of_data(value: Any) -> str:
    """Hash nested dictionaries and sequences of arrays, paths and whatever can be pickled, such as a datalist.

    Equal values have equal hashes, in every process and whatever objects they share. A string that names a file stands
    for its name, size and time of change.

    Args:
        value: rows of a datalist, a state dict, or parts of them.

    Returns:
        A SHA-256 in hexadecimal digits.

    Raises:
        ValueError: when something in it cannot be pickled.

    Example:
        >>> hash_of_data({"a": 1, "b": torch.ones(2)}) == hash_of_data({"b": torch.ones(2), "a": 1})
        True
    """
    digest = hashlib.sha256()
    _update(digest, value)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    # every value is led by its kind and length, so that no two nestings run together into the same bytes
    if isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\n".encode())
        for key in sorted(value, key=repr):
            _update(digest, key)
            _update(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"sequence {len(value)}\n".encode())
        for part in value:
            _update(digest, part)
    elif isinstance(value, Tensor):
        tensor = plain(value).detach().cpu().contiguous()
        digest.update(f"tensor {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"array {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    elif isinstance(value, (str, os.PathLike)):
        name = os.fspath(value)
        digest.update(f"name {len(name)} {name} {_file_status(name)}\n".encode())
    else:
        data = _pickled(value)
        digest.update(f"object {len(data)}\n".encode() + data)


def _file_status(name: str) -> str:
    try:
        status = os.stat(name)
    except (OSError, ValueError):  # a name of something else
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    try:
        _Pickler(stream).dump(value)
    except Exception as error:
        raise ValueError(
            f"A {type(value).__name__} cannot be pickled, so a cache on disk could not tell when it changes: use named "
            f"functions in it, no lambda ({error})."
        ) from error
    return stream.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        # torch pickles the memory address of a tensor along with it
        return (str, (hash_of_data(value),)) if isinstance(value, Tensor) else NotImplemented
