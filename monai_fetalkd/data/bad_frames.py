"""What happens to frames that cannot be read."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping
from typing import Any

import ignite.distributed as idist

from monai_fetalkd.files import written_whole

__all__ = ["BadFrames"]

logger = logging.getLogger(__name__)


class BadFrames:
    """The rule for frames that cannot be read: an error, or left out, listed and counted.

    One object serves all datasets of a run, so that they share one list.

    Args:
        on_error: ``"raise"`` ends the run at the first bad frame, in a sentence that names it. ``"skip"`` leaves it
            out, with its reason in ``path`` and a count in the log.
        limit: largest share of the frames of a dataset that may be left out.
        path: CSV file that lists what was left out: ``image``, ``frame`` (number in a cine, else empty), ``reason``.
            It is written anew, with no rows when nothing was left out; None writes none.

    Raises:
        ValueError: for an unknown ``on_error``, or a limit outside 0 to 1.

    Example:
        >>> bad = BadFrames("skip", limit=0.5)
        >>> bad.add({"image": "a.png"}, ValueError("The frame 'a.png' cannot be read: it is empty."))
        >>> bad.close(total=4)
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
        self._closed = 0  # rows of the datasets before
        if on_error == "skip":
            self._write()

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

    def close(self, total: int) -> None:
        """End a dataset: log and list what it left out.

        Args:
            total: number of frames that the dataset was given.

        Raises:
            ValueError: when a larger share than the limit was left out.
        """
        count = len(self.rows) - self._closed
        self._closed = len(self.rows)
        if not count:
            return
        self._write()
        listed = f" They are listed in '{self.path}'." if self.path is not None else ""
        said = f"{count} of {total} frames cannot be read"
        if count > self.limit * total:
            raise ValueError(
                f"{said}, more than the limit of {self.limit:.0%}: replace them, or raise the limit "
                f"(--max_skipped {count / total:.2g} or more).{listed}"
            )
        logger.warning("%s and are left out.%s", said, listed)

    @idist.one_rank_only()  # all ranks have read the same frames
    def _write(self) -> None:
        if self.path is None:
            return
        with written_whole(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["image", "frame", "reason"])
            writer.writeheader()
            writer.writerows(self.rows)
