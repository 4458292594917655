"""The template of the report, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["LABELS", "flat", "number", "render"]

#: Metrics of the summary: what they are called, and whether more or less of them is better.
LABELS = {
    "accuracy": ("accuracy", "↑"),
    "balanced_accuracy": ("balanced accuracy", "↑"),
    "macro_f1": ("macro F1", "↑"),
    "macro_auroc": ("macro AUROC", "↑"),
    "negative_log_likelihood": ("NLL", "↓"),
    "expected_calibration_error": ("ECE", "↓"),
}

_UNDEFINED = "\N{EN DASH}"


def render(**context: Any) -> str:
    """The page as one HTML text; whatever comes from a file or a user is escaped.

    Args:
        context: what the template needs, see :class:`~monai_fetalkd.evaluation.report.Report`.

    Returns:
        The text.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "flat": flat}
    environment.tests["clear"] = _is_clear
    return environment.get_template("report.html.j2").render(labels=LABELS, **context)


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number with so many decimals and a true minus; a dash where it is not defined.

    Args:
        value: the number, or None.
        digits: decimals.
        sign: also write the plus of a positive number, as of a difference.

    Returns:
        The text.

    Example:
        >>> number(0.88551), number(1234567, 0), number(0.0171, sign=True)
        ('0.886', '1,234,567', '+0.017')
    """
    if value is None:
        return _UNDEFINED
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "\N{MINUS SIGN}")


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The settings of a run as lines of a table.

    Args:
        settings: plain values, or mappings of them.
        prefix: what to put before the names.

    Yields:
        Name, with dots between the levels, and value.

    Example:
        >>> dict(flat({"seed": 0, "versions": {"torch": "2.13"}}))
        {'seed': '0', 'versions.torch': '2.13'}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", str(value)


def _is_clear(difference: Mapping[str, float | None]) -> bool:
    """Whether the interval of a difference excludes zero."""
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and (low > 0 or high < 0)
