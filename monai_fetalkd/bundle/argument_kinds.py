"""What values the arguments of a config take, and what the command line makes of them."""

from __future__ import annotations

import ast
import itertools
import math
import numbers
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Kind", "kind_of"]


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        what: completes the sentence "it must be".
        read: the value itself, or what the command line has made of another spelling of it, is turned into the value;
            raises ValueError where it is none.
        in_components: whether an argument of any component that has the name is of this kind too.
    """

    what: str
    read: Callable[[str, Any], Any]
    in_components: bool = False


def kind_of(item: str) -> Kind | None:
    """The kind of an item of a config by its name.

    Args:
        item: its id, such as ``"teacher::epochs"``.

    Returns:
        The kind; None where any value may be right.

    Example:
        >>> kind_of("teacher::epochs").what
        'a whole number, 1 or more'
        >>> kind_of("teacher::epochs").read("teacher::epochs", 3)
        3
    """
    name = item.rpartition("::")[2]
    if name in _KINDS:
        return _KINDS[name]
    return _PATH if name.endswith(("_dir", "_root", "ckpt")) else None


def _whole(least: int) -> Kind:
    def read(_: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError
        return int(value)

    return Kind(f"a whole number, {least} or more", read, in_components=True)


def _number(what: str, fits: Callable[[float], bool]) -> Kind:
    def read(_: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not fits(float(value)):
            raise ValueError
        return value

    return Kind(f"a number {what}", read, in_components=True)


def _or_none(kind: Kind) -> Kind:
    return Kind(f"{kind.what}, or null", lambda item, value: None if value is None else kind.read(item, value))


def _read_flag(_: str, value: Any) -> bool:
    if isinstance(value, str):  # Python Fire knows True, but leaves the true of JSON a word
        value = {"true": True, "false": False}.get(value.lower())
    if not isinstance(value, bool):
        raise ValueError
    return value


def _read_sizes(_: str, value: Any) -> list[int]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError
    return [_WHOLE.read("", side) for side in value]


def _read_names(_: str, value: Any) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError
    if not all(isinstance(name, str) and name for name in value):
        raise ValueError
    return list(value)


def _read_device(_: str, value: Any) -> Any:
    if isinstance(value, torch.device):
        return value
    try:
        return str(torch.device(value))
    except (RuntimeError, TypeError):
        raise ValueError from None


def _read_path(item: str, value: Any) -> str:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):  # Fire reads the folder 20250101 as a number
        value = next(_spellings(item, value), str(value))
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError
    return os.path.expanduser(os.fspath(value))


def _spellings(item: str, value: Any) -> Iterator[str]:
    """How a number was written on the command line: 2025_01_01 and 1.10 are names that a number does not keep."""
    words = sys.argv[1:]
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, text = word.partition("=")
        if name.lstrip("-").replace("-", "_").replace("#", "::") != item:
            continue
        text = text if equals else following
        try:
            if ast.literal_eval(text) == value:
                yield text
        except (ValueError, SyntaxError):
            continue


_WHOLE, _COUNT = _whole(1), _whole(0)
_WEIGHT = _number("of 0 or more", lambda value: 0 <= value < math.inf)
_POSITIVE = _number("above 0", lambda value: 0 < value < math.inf)
_SHARE = _number("from 0 to 1", lambda value: 0 <= value <= 1)
_FLAG = Kind("true or false", _read_flag, in_components=True)
_SIZES = Kind("a list of sizes in pixels, such as [64,64]", _read_sizes)
_NAMES = Kind("a list of names, such as ['layer3','layer4']", _read_names)
_DEVICE = Kind("a device of PyTorch, such as cpu, cuda or cuda:1", _read_device)
_PATH = Kind("a path", _read_path)

_KINDS = {
    **dict.fromkeys(("epochs", "max_epochs", "batch_size", "val_interval", "bootstrap_repeats", "per_class"), _WHOLE),
    **dict.fromkeys(("num_workers", "views", "seed"), _COUNT),
    **dict.fromkeys(("lr", "temperature"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "ce_weight", "kd_weight", "at_weight", "label_weight"), _WEIGHT),
    **dict.fromkeys(("max_skipped", "agreement", "target"), _SHARE),
    **dict.fromkeys(("resume", "quiet", "channels_last", "compile", "overwrite", "keep_views"), _FLAG),
    **dict.fromkeys(("image_size", "patch_size", "teacher_size"), _SIZES),
    **dict.fromkeys(("layers", "teacher_layers"), _NAMES),
    **dict.fromkeys(("cache_dir", "start_from"), _or_none(_PATH)),
    **dict.fromkeys(("initial", "inference_config"), _PATH),
    "unlabelled_share": _number("from 0, below 1", lambda value: 0 <= value < 1),
    "threads": _or_none(_WHOLE),
    "device": _DEVICE,
}
