"""The answers of a whole stream in one figure. Nothing here needs torch or MONAI."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_fetalkd.utils.files import told_if_unwritten, written_whole
from monai_fetalkd.utils.requirements import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["NO_PLANE", "Timeline", "plane_colors"]

# Okabe & Ito's, told apart with any colour vision; black is left out, it would vanish on a frame
_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")

NO_PLANE = "#888888"

_DASHES = ("-", "--", ":", "-.")


class Timeline:
    """Collects answers and draws them: probability of each plane over time, the plane answered, frames dropped.

    It keeps the smoothed probabilities of every answer, 4 bytes a class.

    Args:
        class_names: names of the classes.

    Raises:
        ImportError: when matplotlib is not installed.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        require("To draw a timeline", "matplotlib")
        from matplotlib.figure import Figure

        self._figure = Figure(figsize=(10, 4.2), layout="constrained")
        self._names = list(class_names)
        self._numbers = array("q")
        self._times = array("d")
        self._planes = array("h")
        self._dropped = array("q")
        self._smoothed = array("f")

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take in one answer.

        Args:
            answer: what a JSON line of ``python -m monai_fetalkd stream`` holds: ``frame``, ``time_ms``, ``plane``,
                ``smoothed`` and ``dropped``.

        Raises:
            KeyError: when a field or a class is missing.
            ValueError: when it names another plane.
        """
        time, plane = answer["time_ms"], answer["plane"]
        smoothed = [answer["smoothed"][name] for name in self._names]
        self._planes.append(-1 if plane is None else self._names.index(plane))
        self._numbers.append(answer["frame"])
        self._times.append(np.nan if time is None else time / 1000)
        self._dropped.append(answer["dropped"])
        self._smoothed.extend(smoothed)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Draw the figure into a file; without any answer there is none.

        Args:
            path: the PNG file.

        Raises:
            OSError: when it cannot be written.
        """
        if not self._numbers:
            return
        figure = self.draw()
        with told_if_unwritten(path), written_whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)

    def draw(self) -> Figure:
        """Draw the figure, in the colours of matplotlib's settings.

        Returns:
            The figure: the smoothed probabilities above, the answers and what was dropped below.
        """
        self._figure.clear()
        upper, lower = self._figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        timed = not np.isnan(self._times).any()
        moments = np.array(self._times if timed else self._numbers, dtype=np.float64)
        self._draw_probabilities(upper, moments)
        self._draw_planes(lower, moments)
        lower.set_xlabel("time in s" if timed else "frame")
        return self._figure

    def _draw_probabilities(self, axes: Axes, moments: np.ndarray) -> None:
        smoothed = np.array(self._smoothed).reshape(-1, len(self._names))
        colors = plane_colors(self._names)
        for name, values, dash in zip(self._names, smoothed.T, cycle(_DASHES), strict=False):
            axes.plot(moments, values, dash, color=colors[name], label=name, linewidth=1.4)
        axes.set(ylabel="smoothed probability", ylim=(0, 1.02))
        axes.grid(linewidth=0.4)
        axes.fill_between([], [], color=NO_PLANE, label="undecided")  # in the lower axes
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    def _draw_planes(self, axes: Axes, moments: np.ndarray) -> None:
        colors = list(plane_colors(self._names).values())
        planes = np.array(self._planes)
        starts = np.flatnonzero(np.diff(planes, prepend=-2))
        ends = [*moments[starts[1:]], moments[-1]]
        for start, end in zip(starts, ends, strict=True):
            plane, left = planes[start], moments[start]
            axes.axvspan(left, end, ymin=0.4, color=colors[plane] if plane >= 0 else NO_PLANE, linewidth=0)
        lost = np.flatnonzero(np.diff(self._dropped, prepend=0))
        axes.vlines(moments[lost], 0, 0.3, color=axes.xaxis.label.get_color(), linewidth=0.6)
        axes.grid(visible=False)
        axes.set(ylim=(0, 1), yticks=[0.15, 0.7], yticklabels=["dropped before", "answer"])


def plane_colors(names: Sequence[str]) -> dict[str, str]:
    """Colours of the planes, the same in every drawing; they repeat after seven.

    Args:
        names: names of the planes.

    Returns:
        The colour of each, as ``#RRGGBB``.

    References:
        Okabe, M. & Ito, K. (2008). Color Universal Design. https://jfly.uni-koeln.de/color/

    Example:
        >>> plane_colors(["abdomen", "brain"])
        {'abdomen': '#E69F00', 'brain': '#56B4E9'}
    """
    return {name: _COLORS[place % len(_COLORS)] for place, name in enumerate(names)}
