"""Charts as inline SVG that takes its colours from the page: legible in light, in dark and on paper."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from monai_fetalkd.evaluation.timeline import Timeline

from .curves import StageCurves

__all__ = [
    "accuracy_curves",
    "confusion_matrix",
    "cost_figure",
    "loss_curves",
    "reliability_diagram",
    "timeline_figure",
]

# Okabe & Ito's colours, those with contrast on white and on black first
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))

_DECADE = 10

# stand-ins that become the page's own colours
_TEXT, _LINE = "#010203", "#040506"

_STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "axes.edgecolor": _LINE,
    "axes.grid": True,
    "axes.labelcolor": _TEXT,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "svg.fonttype": "none",
    "text.color": _TEXT,
    "text.parse_math": False,  # a class name may hold a dollar sign
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}


def accuracy_curves(stages: Sequence[StageCurves]) -> Markup:
    """Accuracy on the validation frames over epochs, one line for each stage that was validated.

    Args:
        stages: the stages, one of them validated at least.

    Returns:
        The figure.
    """
    validated = {stage.name: stage.accuracy for stage in stages if stage.accuracy}
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(4.6, 3.0)
        lines = []
        for curve, look in zip(validated.values(), _looks(), strict=False):
            lines += axes.plot(curve.steps, curve.values, **look, markersize=3.5)
        axes.set(xlabel="epoch", ylabel="validation accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        _legend(figure, lines, list(validated))
        return _svg(figure, f"Accuracy on the validation frames over epochs, for {', '.join(validated)}.")


def loss_curves(stage: StageCurves) -> Markup:
    """The loss of a stage and its parts over optimizer steps, averaged as the stage says.

    The scale is logarithmic where the values span a decade.

    Args:
        stage: the stage.

    Returns:
        The figure.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(4.6, 3.0)
        lines = []
        for curve, look in zip(stage.losses.values(), _looks(), strict=False):
            mean = curve.averaged(stage.steps_per_block)
            lines += axes.plot(mean.steps, mean.values, **look, markersize=3.5)
        low, high = axes.dataLim.intervaly
        if low > 0 and high > _DECADE * low:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set(xlabel="optimizer step", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _legend(figure, lines, list(stage.losses))
        return _svg(figure, f"{stage.name}: {', '.join(stage.losses)} over optimizer steps.")


def confusion_matrix(name: str, class_names: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Counts of true and predicted classes, coloured by their share of the true class.

    Args:
        name: name of the network.
        class_names: names of the classes.
        counts: ``[C, C]``, rows truth, columns prediction.

    Returns:
        The figure.
    """
    size = len(class_names)
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _axes(0.55 * size, 0.55 * size)
        for row, line in enumerate(counts):
            total = sum(line)
            for column, count in enumerate(line):
                share = count / total if total else 0.0
                # the tint is see-through, so that an empty cell is the page itself
                axes.add_patch(mpl.patches.Rectangle((column, row), 1, 1, facecolor=_COLORS[0], alpha=share, lw=0))
                color = "white" if share > 0.8 else _TEXT
                style: dict[str, Any] = {"ha": "center", "va": "center", "color": color}
                if count:
                    axes.text(column + 0.5, row + 0.42, f"{count}", **style)
                    axes.text(column + 0.5, row + 0.76, f"{share:.0%}", **style, fontsize=6.5)
        axes.set(xlim=(0, size), ylim=(size, 0), xlabel="answer of the network", ylabel="true class", aspect="equal")
        ticks = [tick + 0.5 for tick in range(size)]
        axes.set_xticks(ticks, class_names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, class_names)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(mpl.ticker.FixedLocator(range(size + 1)))
        axes.grid(which="minor", linewidth=0.6)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        return _svg(figure, f"Confusion matrix of {name}: rows are true classes, columns are answers.")


def reliability_diagram(name: str, bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
    """How often the network is right against how sure it says to be.

    Args:
        name: name of the network.
        bins: the bins of :func:`~monai_fetalkd.evaluation.scores.calibration.reliability_bins`, by what to call them.

    Returns:
        The figure; the area of a marker grows with the share of the frames in its bin.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(3.3, 3.3)
        axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1.2)
        lines = []
        for rows, look in zip(bins.values(), _looks(), strict=False):
            filled = [row for row in rows if row["frames"]]
            total = sum(row["frames"] for row in filled)
            sure = [row["confidence"] for row in filled]
            right = [row["accuracy"] for row in filled]
            marker = look.pop("marker")
            axes.plot(sure, right, **look, linewidth=1.2)
            areas = [12 + 260 * row["frames"] / total for row in filled]
            style = {"color": look["color"], "marker": marker, "alpha": 0.75, "linewidths": 0, "zorder": 3}
            axes.scatter(sure, right, s=areas, **style, clip_on=False)
            lines.append(mpl.lines.Line2D([], [], **look, marker=marker))
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
        axes.set(xlabel="mean probability of the answer", ylabel="share of right answers")
        _legend(figure, lines, list(bins), columns=1)
        return _svg(figure, f"Reliability diagram of {name}, {', '.join(bins)}.")


def cost_figure(points: Mapping[str, tuple[float, Mapping[str, Any]]], unit: str) -> Markup:
    """Accuracy with its interval against what a network costs.

    Args:
        points: cost and accuracy (``value``, ``low``, ``high``, as in ``metrics.json``) of each network by its name.
        unit: what the cost is, with its unit: the label of the axis.

    Returns:
        The figure.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(4.6, 3.0)
        lines = []
        for (cost, accuracy), look in zip(points.values(), _looks(), strict=False):
            value, low, high = accuracy["value"], accuracy["low"], accuracy["high"]
            reach = None if low is None or high is None else [[value - low], [high - value]]
            style = {"color": look["color"], "marker": look["marker"], "markersize": 7, "linestyle": "none"}
            axes.errorbar(cost, value, yerr=reach, **style, capsize=3, elinewidth=1.2)
            lines.append(mpl.lines.Line2D([], [], **style))
        axes.set(xscale="log", xlabel=f"{unit}, logarithmic", ylabel="accuracy")
        axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(_tick)
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.margins(x=0.25)
        _legend(figure, lines, list(points), columns=1)
        return _svg(figure, f"Accuracy against {unit}, for {', '.join(points)}.")


def _tick(value: float, _: float) -> str:
    """A number on a logarithmic axis: 0.5, 20, 100k, 2M."""
    return f"{value:g}" if value < 1000 else mpl.ticker.EngFormatter(sep="")(value)


def timeline_figure(title: str, timeline: Timeline) -> Markup:
    """The answers of a stream over time.

    Args:
        title: what to call the stream.
        timeline: its answers, one at least.

    Returns:
        The figure.
    """
    with mpl.rc_context(_STYLE):
        return _svg(timeline.draw(), f"Timeline of {title}: probability of each plane, and the plane answered.")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    return figure, axes


def _looks() -> Iterator[dict[str, Any]]:
    """Colour, dash and marker for one line after the other, so that no line is known by its colour alone."""
    for color, marker, dashes in zip(cycle(_COLORS), cycle(_MARKERS), cycle(_DASHES), strict=False):
        yield {"color": color, "marker": marker, "linestyle": dashes}


def _legend(figure: Figure, lines: Sequence[Any], names: Sequence[str], columns: int = 2) -> None:
    if len(names) > 1:
        # matplotlib leaves a name that begins with an underscore out of a legend
        names = [re.sub(r"^_", "\u200b_", name) for name in names]
        figure.legend(lines, names, loc="outside upper left", ncols=columns)


def _svg(figure: Figure, description: str) -> Markup:
    buffer = io.StringIO()
    # identifiers that are the same in every run and differ between the figures of a page
    with mpl.rc_context({"svg.hashsalt": description}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has fonts of its own
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)  # its style would be that of the page
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace(_TEXT, "currentColor").replace(_LINE, "var(--line)")
    text = re.sub(r"'DejaVu Sans'(, sans-serif)?", "var(--font)", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))
