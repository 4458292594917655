"""When the frames of a DICOM cine were taken."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import accumulate

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from ..guard import warn_once
from .elements import items, number, numbers, text

__all__ = ["frame_times"]

Times = list[float]


def frame_times(path: str, elements: Dataset, count: int) -> Times | None:
    """Milliseconds since the first frame, of each frame.

    Args:
        path: the file, for warnings.
        elements: its header.
        count: how many frames it holds.

    Returns:
        The times; None where there is one frame only, or the header does not tell them in a way that can be used.

    References:
        DICOM PS3.3, sections C.7.6.5 (cine), C.7.6.6 (multi-frame), C.7.6.16.2 (functional groups).
    """
    if count == 1:
        return None
    sources: dict[str, Callable[[Dataset, int], Times | None]] = {
        "FrameTimeVector": _from_vector,
        "FrameTime": _from_step,
        "PerFrameFunctionalGroupsSequence": _from_groups,
        "CineRate": _from_rate,
        "RecommendedDisplayFrameRate": _from_rate,
    }
    # of several statements the header says which counts
    pointed = _tags(elements)
    for keyword in sorted(sources, key=lambda keyword: tag_for_keyword(keyword) not in pointed):
        if keyword in elements:
            times = sources[keyword](elements, count)
            if times is not None and all(map(math.isfinite, times)) and min(times) >= 0 < max(times):
                return times
            if keyword != "PerFrameFunctionalGroupsSequence":  # which may be there for other attributes
                warn_once(path, f"its {keyword} cannot be used for the times of its frames, it is ignored")
    return None


def _tags(elements: Dataset) -> set[int]:
    halves = iter(numbers(elements, "FrameIncrementPointer"))
    return {int(group) << 16 | int(element) for group, element in zip(halves, halves, strict=False)}


def _from_vector(elements: Dataset, count: int) -> Times | None:
    increments = numbers(elements, "FrameTimeVector")
    if len(increments) == count - 1:  # some leave out the first, which means nothing
        increments = [0, *increments]
    return [0.0, *accumulate(map(float, increments[1:]))] if len(increments) == count else None


def _from_step(elements: Dataset, count: int) -> Times | None:
    step = number(elements, "FrameTime")
    return [step * frame for frame in range(count)] if step else None


def _from_rate(elements: Dataset, count: int) -> Times | None:
    rate = number(elements, "CineRate") or number(elements, "RecommendedDisplayFrameRate")
    return [1000.0 * frame / rate for frame in range(count)] if rate else None


def _from_groups(elements: Dataset, count: int) -> Times | None:
    groups = items(elements, "PerFrameFunctionalGroupsSequence")
    for read in (_offset, _moment):
        moments = [moment for moment in map(read, groups) if moment is not None]
        if len(moments) == count:
            return [moment - moments[0] for moment in moments]
    return None


def _offset(group: Dataset) -> float | None:
    for position in items(group, "TemporalPositionSequence"):
        seconds = number(position, "TemporalPositionTimeOffset")
        return None if seconds is None else 1000 * seconds
    return None


def _moment(group: Dataset) -> float | None:
    for content in items(group, "FrameContentSequence"):
        for keyword in ("FrameAcquisitionDateTime", "FrameReferenceDateTime"):
            with suppress(ValueError):
                whole, _, fraction = re.split(r"[+-]", text(content, keyword))[0].partition(".")
                seconds = (datetime.strptime(whole, "%Y%m%d%H%M%S") - datetime.min).total_seconds()
                return 1000 * seconds + float(f"0.{fraction or 0}") * 1000
    return None
