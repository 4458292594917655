"""Runs code where torch and MONAI cannot be imported, though they are installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_PROLOGUE = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "monai", "ignite"):
            raise ModuleNotFoundError(f"No module named {name!r}, as it is forbidden here", name=name)

sys.meta_path.insert(0, Forbidden())
"""
_COMMAND = """
import runpy
sys.argv[0] = "monai_fetalkd"
runpy.run_module("monai_fetalkd", run_name="__main__")
"""


def command_without_torch(code: str | Sequence[Any]) -> list[str]:
    """The command of a process without torch and MONAI: Python code, or ``python -m monai_fetalkd`` with arguments."""
    body, arguments = (code, ()) if isinstance(code, str) else (_COMMAND, code)
    return [sys.executable, "-c", _PROLOGUE + body, *map(str, arguments)]


def run_without_torch(code: str | Sequence[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run such a process to its end.

    ``options`` are those of ``subprocess.run``; what the process prints is captured as text.
    """
    defaults = {"capture_output": True, "text": True, "timeout": 60}
    return subprocess.run(command_without_torch(code), **{**defaults, **options})
