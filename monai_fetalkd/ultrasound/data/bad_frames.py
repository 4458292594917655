"""What happens to frames that cannot be read."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist

from monai_fetalkd.utils.files import written_whole

__all__ = ["BadFrames"]

logger = logging.getLogger(__name__)

_COLUMNS = ("image", "frame", "reason")


class BadFrames:
    """The rule for frames that cannot be read: an error, or left out, listed and counted.

    One object serves all datasets of a run, so that they share one list; so do its copies in the workers of a loader.

    Args:
        on_error: ``"raise"`` ends the run at the first bad frame, in a sentence that names it. ``"skip"`` leaves it
            out, with its reason in ``path`` and a count in the log.
        limit: largest share of the frames of a dataset that may be left out.
        path: CSV file that lists what was left out: ``image``, ``frame`` (number in a cine, else empty), ``reason``.
            It is made anew, and stays without rows when nothing is left out; None writes none.

    Raises:
        ValueError: for an unknown ``on_error``, or a limit outside 0 to 1.

    Example:
        >>> bad = BadFrames("skip", limit=0.5)
        >>> bad.add({"image": "a.png"}, ValueError("The frame 'a.png' cannot be read: it is empty."))
        >>> bad.close(left_out=1, total=4)
        >>> bad.rows
        [{'image': 'a.png', 'frame': '', 'reason': "The frame 'a.png' cannot be read: it is empty."}]
    """

    def __init__(
        self, on_error: str = "raise", limit: float = 0.05, path: str | os.PathLike[str] | None = None
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not '{on_error}'.")
        if not 0 <= limit <= 1:
            raise ValueError(f"The limit of frames left out is a share between 0 and 1, not {limit}.")
        self.on_error = on_error
        self.limit = limit
        self.path = path
        self.rows: list[dict[str, str]] = []
        self._listed = 0  # how many of them are in the file
        if on_error == "skip":
            self._make_list()

    def add(self, row: Mapping[str, Any], error: ValueError) -> None:
        """Take note of a frame that cannot be read.

        Args:
            row: the row of the datalist.
            error: a sentence that names the file and the reason.

        Raises:
            ValueError: the error itself, unless bad frames are to be left out.
        """
        if self.on_error == "raise":
            raise error
        self.rows.append({"image": str(row["image"]), "frame": str(row.get("frame", "")), "reason": str(error)})

    def close(self, left_out: int, total: int) -> None:
        """End a dataset: log and list what it left out.

        Args:
            left_out: number of frames of the dataset that were left out, in all workers of a loader so far.
            total: number of frames that the dataset was given.

        Raises:
            ValueError: when a larger share than the limit was left out.
        """
        self._list()
        if not left_out:
            return
        listed = f" They are listed in '{self.path}'." if self.path is not None else ""
        said = f"{left_out} of {total} frames cannot be read"
        if left_out > self.limit * total:
            raise ValueError(
                f"{said}, more than the limit of {self.limit:.0%}: replace them, or raise the limit "
                f"(--max_skipped {left_out / total:.2g} or more).{listed}"
            )
        logger.warning("%s and are left out.%s", said, listed)

    @idist.one_rank_only()  # all ranks have read the same frames
    def _make_list(self) -> None:
        if self.path is not None:
            with written_whole(self.path) as temporary:
                temporary.write_bytes(_csv([dict(zip(_COLUMNS, _COLUMNS, strict=True))]))

    @idist.one_rank_only()
    def _list(self) -> None:
        rows, self._listed = self.rows[self._listed :], len(self.rows)
        if self.path is not None and rows:
            with open(self.path, "ab", buffering=0) as file:
                file.write(_csv(rows))  # at once, so that rows of several workers do not mix


def _csv(rows: Sequence[Mapping[str, str]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, _COLUMNS).writerows(rows)
    return text.getvalue().encode()
