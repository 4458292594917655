"""One page that shows what finished networks do, for a reader without a network connection or a Python."""

from __future__ import annotations

from .report import Report

__all__ = ["Report"]
