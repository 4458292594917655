"""Tables for a terminal: in Markdown, or plain with numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown_table", "plain_table"]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows of cells as an aligned Markdown table.

    Args:
        rows: the head and the rows below it, all of as many cells.

    Returns:
        The lines of the table. A vertical bar in a cell is escaped.

    Example:
        >>> print(markdown_table([["network", "accuracy"], ["teacher", "0.761"]]))
        | network | accuracy |
        | ------- | -------- |
        | teacher | 0.761    |
    """
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells]
    return "\n".join([head, f"| {' | '.join('-' * width for width in widths)} |", *body])


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows of cells as aligned columns, the first to the left and all others, which hold numbers, to the right.

    Args:
        rows: the head and the rows below it, all of as many cells.

    Returns:
        The lines of the table.

    Example:
        >>> print(plain_table([["class", "frames"], ["brain", "12"]]))
        class  frames
        brain      12
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)
