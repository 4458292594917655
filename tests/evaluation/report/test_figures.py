from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

import numpy as np
import pytest

from monai_fetalkd.evaluation.report import figures
from monai_fetalkd.evaluation.report.curves import Curve, StageCurves

ACCURACY = {"value": 0.8, "low": 0.7, "high": 0.9}


def texts(figure: str) -> list[str]:
    """The pieces of text in a figure, which is whole XML."""
    return ["".join(node.itertext()) for node in ElementTree.fromstring(figure).iter() if node.tag.endswith("}text")]


def stage(values: list[float], **parts: list[float]) -> StageCurves:
    curves = {"loss": values, **parts}
    steps = np.arange(1, len(values) + 1)
    losses = {name: Curve(steps, np.array(curve)) for name, curve in curves.items()}
    return StageCurves("stage <1>", losses, Curve(steps, np.linspace(0.1, 0.9, len(values))))


def test_a_confusion_matrix_tells_counts_shares_and_classes():
    names = ["brain & head", "_femur", "cost $x$ \N{CJK UNIFIED IDEOGRAPH-8111}"]
    shown = texts(figures.confusion_matrix("student", names, [[3, 1, 0], [0, 0, 0], [0, 0, 20]]))
    assert set(names) <= set(shown)
    assert {"3", "75%", "1", "25%", "20", "100%"} <= set(shown)
    assert "0" not in shown
    assert {"answer of the network", "true class"} <= set(shown)


@pytest.mark.parametrize(
    ("figure", "labels"),
    [
        (figures.accuracy_curves([stage([3, 2, 1])]), {"epoch", "validation accuracy"}),
        (figures.loss_curves(stage([3, 2, 1])), {"optimizer step", "loss"}),
        (
            figures.cost_figure({"student": (1.5, ACCURACY)}, "milliseconds a frame"),
            {"milliseconds a frame, logarithmic", "accuracy"},
        ),
        (
            figures.reliability_diagram("x", {"as trained": [{"frames": 2, "confidence": 0.5, "accuracy": 0.4}]}),
            {"mean probability of the answer", "share of right answers"},
        ),
    ],
)
def test_axes_are_labelled_and_take_the_colours_of_the_page(figure, labels):
    assert labels <= set(texts(figure))
    fills = set(re.findall(r"<text style=\"[^\"]*fill: ([^\";]+)", figure))
    assert fills == {"currentColor"}


def test_every_line_is_in_the_legend_whatever_its_name():
    shown = texts(figures.cost_figure({"_teacher": (9.0, ACCURACY), "a <b>": (1.0, ACCURACY)}, "parameters"))
    assert {"\u200b_teacher", "a <b>"} <= set(shown)


def test_an_interval_that_is_not_defined_is_not_drawn():
    figures.cost_figure({"student": (1.5, {"value": 1.0, "low": None, "high": None})}, "parameters")


@pytest.mark.parametrize("values", [[5.0, 4.0, 3.0], [100.0, 1.0, 0.01], [1.0, 0.0, -1.0]])
def test_losses_of_any_range_are_drawn(values):
    figure = figures.loss_curves(stage(values, kd=values[::-1]))
    assert "stage <1>: loss, kd" in unescape(figure)
    assert {"loss", "kd"} <= set(texts(figure))


def test_empty_bins_are_left_out():
    rows = [
        {"frames": 0, "confidence": None, "accuracy": None},
        {"frames": 3, "confidence": 0.8, "accuracy": 2 / 3},
    ]
    assert "as trained" in texts(figures.reliability_diagram("x", {"as trained": rows, "temperature 2.00": rows}))
