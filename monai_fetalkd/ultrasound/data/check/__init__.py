"""The check of a datalist: class balance, groups in two splits, frames with two labels, duplicates across splits."""

from __future__ import annotations

from .balance import Balance, count_balance
from .duplicates import MIN_CORRELATION, Pair, find_pairs
from .fingerprints import Fingerprint, fingerprint, read_fingerprints
from .report import CheckReport, Duplicate, Place, check_datalist
from .text import report_text

__all__ = [
    "MIN_CORRELATION",
    "Balance",
    "CheckReport",
    "Duplicate",
    "Fingerprint",
    "Pair",
    "Place",
    "check_datalist",
    "count_balance",
    "find_pairs",
    "fingerprint",
    "read_fingerprints",
    "report_text",
]
