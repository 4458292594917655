"""What `python -m monai_fetalkd stream` has answered, for the report."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from monai_fetalkd.evaluation.timeline import Timeline

from .figures import timeline_figure

__all__ = ["read_stream"]

_NO_PLANE = "other"  # the class of frames that show none of the planes, however it is capitalised


def read_stream(title: str, path: str | PathLike[str]) -> dict[str, Any]:
    """The timeline of a stream, how many frames it had, and where the best one of each plane is.

    Args:
        title: what to call the stream.
        path: the JSON lines of the command's standard output.

    Returns:
        ``title``; ``figure``; and ``summary``, the last of the lines, None where the stream was cut off before it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it holds no answer, or a line that is none.
    """
    timeline: Timeline | None = None
    summary = None
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                content = json.loads(line)
                if "summary" in content:
                    summary = content["summary"]
                    continue
                timeline = timeline or Timeline(list(content["smoothed"]))
                timeline.add(content)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise ValueError(
                    f"Line {number} of '{path}' is no answer of a stream: give what `python -m monai_fetalkd stream` "
                    "has printed."
                ) from None
    if timeline is None:
        raise ValueError(f"'{path}' holds no answer: no frame of this stream could be decoded.")
    if summary is not None:
        best = {plane: frame for plane, frame in summary["best"].items() if plane.casefold() != _NO_PLANE}
        summary = {**summary, "best": best}
    return {"title": title, "figure": timeline_figure(title, timeline), "summary": summary}
