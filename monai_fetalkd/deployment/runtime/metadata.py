"""What an exported network tells of itself, read so that damage is told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["class_names_of", "reading_metadata"]


@contextmanager
def reading_metadata(name: str) -> Iterator[None]:
    """Tell what is missing from the metadata of a file, or damaged.

    Args:
        name: the file.

    Raises:
        ValueError: when an entry is missing or cannot be read.

    Example:
        >>> with reading_metadata("student.onnx"):  # doctest: +ELLIPSIS
        ...     {}["class_names"]
        Traceback (most recent call last):
        ...
        ValueError: 'student.onnx' does not tell its 'class_names' in its metadata: ...
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(
            f"'{name}' does not tell its {error} in its metadata: write it with `python -m monai_fetalkd export`."
        ) from None
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The metadata of '{name}' are damaged: {error}") from None


def class_names_of(value: Any) -> tuple[str, ...]:
    """The class table, a list of names; ValueError for anything else."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"the classes are a list of names, not {value!r}.")
    if len(value) < 2 or len(set(value)) < len(value):
        raise ValueError(f"the classes are two or more, and each is named once, not {value!r}.")
    return tuple(value)
