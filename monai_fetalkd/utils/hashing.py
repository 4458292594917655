"""Digests that tell whether what a cache on disk was made from is still the same."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

import monai
import numpy as np
import torch
from torch import Tensor

from monai_fetalkd.utils.code import code_of
from monai_fetalkd.utils.tensor import plain

__all__ = ["hash_of_code", "hash_of_data", "hash_of_transforms"]


def hash_of_transforms(transforms: Sequence[Callable]) -> str:
    """Hash transforms with all their settings, their code (see :func:`hash_of_code`) and MONAI's and numpy's versions.

    Args:
        transforms: the transforms.

    Returns:
        A SHA-256 in hexadecimal digits.

    Raises:
        ValueError: when a transform cannot be pickled.

    Example:
        >>> from monai.transforms import RandFlipd
        >>> hash_of_transforms([RandFlipd("image", prob=0.1)]) == hash_of_transforms([RandFlipd("image", prob=0.2)])
        False
    """
    data, reached = _pickled(list(transforms))
    digest = hashlib.sha256(f"{monai.__version__} {np.__version__} {hash_of_code(reached)}".encode())
    digest.update(data)
    return digest.hexdigest()


def hash_of_code(objects: Iterable[Any]) -> str:
    """Hash the code that runs when these objects are used, such as ``network.modules()``.

    - A module in a file counts with its source, and so do the modules that it imports, at its top or in a function, and
      those that they import in turn; a package's ``__init__`` where something is imported from it.
    - A module of an installed package (in ``site-packages``) counts with the version of that package; the standard
      library does not count.
    - A function or class of ``__main__``, as in a script or a notebook, or of another module without a file, counts by
      its compiled code, and so do the functions, classes and plain constants there that it names. What else stands in
      the script makes no difference.
    - TorchScript and FX modules count by the code that was generated for them.

    Args:
        objects: classes, functions, or other objects, which stand for their classes.

    Returns:
        A SHA-256 in hexadecimal digits.

    Example:
        >>> hash_of_code(torch.nn.Linear(2, 2).modules()) == hash_of_code([torch.nn.Conv2d])  # both are torch's
        True
    """
    return hashlib.sha256(repr(sorted(code_of(objects).items())).encode()).hexdigest()


def hash_of_data(value: Any, path_keys: Collection[Hashable] = ()) -> str:
    """Hash nested dictionaries and sequences of arrays, strings and whatever can be pickled, such as a datalist.

    Equal values have equal hashes, in every process and whatever objects they share. Files count only under
    ``path_keys``: there a path stands for the file's full name, size and time of change, so that it may be given
    relative to any working directory. A path to nothing is a string like any other.

    Args:
        value: rows of a datalist, a state dict, or parts of them.
        path_keys: the keys of dictionaries in it whose values are paths, or sequences of paths.

    Returns:
        A SHA-256 in hexadecimal digits.

    Raises:
        ValueError: when something in it cannot be pickled.

    Example:
        >>> hash_of_data({"a": 1, "b": torch.ones(2)}) == hash_of_data({"b": torch.ones(2), "a": 1})
        True
        >>> rows = [{"image": __file__, "label": "brain"}]
        >>> hash_of_data(rows) == hash_of_data(rows, path_keys=["image"])
        False
    """
    digest = hashlib.sha256()
    _update(digest, value, path_keys)
    return digest.hexdigest()


def _update(digest: Any, value: Any, path_keys: Collection[Hashable], is_path: bool = False) -> None:
    # every value is led by its kind and length, so that no two nestings run together into the same bytes
    if isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\n".encode())
        for key in sorted(value, key=repr):
            _update(digest, key, path_keys)
            _update(digest, value[key], path_keys, is_path=key in path_keys)
    elif isinstance(value, (list, tuple)):
        digest.update(f"sequence {len(value)}\n".encode())
        for part in value:
            _update(digest, part, path_keys, is_path)
    elif isinstance(value, Tensor):
        tensor = plain(value).detach().cpu().contiguous()
        digest.update(f"tensor {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"array {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    elif isinstance(value, (str, os.PathLike)):
        name, status = _file(os.fspath(value)) if is_path else (os.fspath(value), "")
        digest.update(f"name {len(name)} {name} {status}\n".encode(errors="surrogatepass"))
    else:
        data, _ = _pickled(value)
        digest.update(f"object {len(data)}\n".encode() + data)


def _file(path: str) -> tuple[str, str]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # an address, or a file that is not there
        return path, ""
    return os.path.realpath(path), f"{status.st_size} {status.st_mtime_ns}"


def _pickled(value: Any) -> tuple[bytes, list[Any]]:
    """Pickle a value, and tell the classes and functions that the pickle names."""
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    try:
        pickler.dump(value)
    except Exception as error:
        raise ValueError(
            f"A {type(value).__name__} cannot be pickled, so a cache on disk could not tell when it changes: use named "
            f"functions in it, no lambda ({error})."
        ) from error
    return stream.getvalue(), pickler.reached


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.reached: list[Any] = []

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):  # torch pickles the memory address of a tensor along with it
            return str, (hash_of_data(value),)
        if isinstance(value, (type, FunctionType)):
            self.reached.append(value)
        return NotImplemented
