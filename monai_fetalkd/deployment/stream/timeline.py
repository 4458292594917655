"""The answers of a whole stream in one figure."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_fetalkd.utils.files import written_whole

from .answers import Answer
from .colors import NO_PLANE, plane_colors
from .outputs import told_if_unwritten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Timeline"]

_DASHES = ("-", "--", ":", "-.")


class Timeline:
    """Collects answers and draws them: probability of each plane over time, the plane answered, frames dropped.

    It keeps the smoothed probabilities of every answer, 4 bytes a class.

    Args:
        class_names: names of the classes.

    Raises:
        ValueError: when matplotlib is not installed.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ValueError('The timeline needs matplotlib: run `pip install "monai-fetalkd[report]"`.') from None
        self._figure = Figure(figsize=(10, 4.2), layout="constrained")
        self._names = list(class_names)
        self._numbers = array("q")
        self._times = array("d")
        self._planes = array("h")
        self._dropped = array("q")
        self._smoothed = array("f")

    def add(self, answer: Answer) -> None:
        """Take in one answer."""
        self.add_line(answer.to_dict())

    def add_line(self, line: Mapping[str, Any]) -> None:
        """Take in one answer as a JSON line holds it.

        Args:
            line: what :meth:`Answer.to_dict` returns.

        Raises:
            KeyError: when a field or a class is missing.
            ValueError: when it names another plane.
        """
        time, plane = line["time_ms"], line["plane"]
        smoothed = [line["smoothed"][name] for name in self._names]
        self._planes.append(-1 if plane is None else self._names.index(plane))
        self._numbers.append(line["frame"])
        self._times.append(np.nan if time is None else time / 1000)
        self._dropped.append(line["dropped"])
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
