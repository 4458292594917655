"""What the arguments of commands take, and those that commands share."""

from __future__ import annotations

import argparse
import os

__all__ = ["add_model", "count", "path", "share", "whole"]


def path(text: str) -> str:
    """A path, with the home folder in the place of ``~``: the shell leaves that of ``--output_dir=~/runs`` as it is."""
    if not text:
        raise argparse.ArgumentTypeError("a path is missing")
    return os.path.expanduser(text)


def count(text: str) -> int:
    """A whole number, 1 or more."""
    return whole(text, least=1)


def whole(text: str, least: int = 0) -> int:
    """A whole number, 0 or more."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"it must be a whole number, {least} or more, not {text}")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"it must be a number from 0 to 1, not {text}")
    return number


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, which commands that run an exported network take first."""
    told = "the exported network (ONNX; the student of the package)"
    parser.add_argument("model", type=path, nargs="?", metavar="MODEL", help=told)
