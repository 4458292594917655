"""Traits of transforms that MONAI has no trait for, see ``monai.transforms.traits``."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from monai.transforms import Compose, LoadImaged

__all__ = ["FileReaderTrait", "path_keys"]


class FileReaderTrait:
    """Marks a dictionary transform that reads files: the values of its ``keys`` are paths.

    MONAI's ``LoadImaged`` counts as one without it.
    """

    keys: Iterable[Hashable]


def path_keys(transform: Any) -> set[Hashable]:
    """The keys whose values a transform reads from files.

    Args:
        transform: a transform, or a ``Compose`` of transforms, nested or not.

    Returns:
        The keys.

    Example:
        >>> from monai.transforms import EnsureTyped
        >>> path_keys(Compose([Compose([LoadImaged("image")]), EnsureTyped("label")]))
        {'image'}
    """
    if isinstance(transform, Compose):
        return {key for part in transform.transforms for key in path_keys(part)}
    return set(transform.keys) if isinstance(transform, LoadImaged | FileReaderTrait) else set()
