"""What the integers of this machine can do."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

__all__ = ["adds_exactly"]

_INFORMATION = Path("/proc/cpuinfo")


@cache
def adds_exactly() -> bool | None:
    """Whether products of full 8-bit activations and weights are added up without overflow.

    x86 without the VNNI instructions (Intel before 2019 on servers and 2021 on desktops, AMD before Zen 4) adds two
    such products in 16 bits, where they overflow silently; ONNX Runtime computes with these instructions there.

    Returns:
        True with VNNI and on processors other than x86; None where the machine does not tell.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return True
    try:
        information = _INFORMATION.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return re.search(r"^flags\b.*\bavx(512)?_vnni\b", information, re.MULTILINE) is not None
