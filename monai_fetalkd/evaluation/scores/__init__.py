"""Scores of finished networks: what they say of each frame, how good that is, and how sure we can be of it.

It needs numpy and scipy only: predictions in a CSV file are enough.
"""

from __future__ import annotations

from .calibration import calibration_scores, fit_temperature, reliability_bins, with_temperature
from .cases import resampled_means
from .classification import class_scores, confusion_counts, notes, part_scores, scores
from .intervals import (
    Interval,
    McNemar,
    aligned,
    difference_intervals,
    differences,
    exact_interval,
    intervals,
    mcnemar,
    resampled_scores,
    score_intervals,
)
from .output import check_output, write_evaluation
from .predictions import Predictions, read_predictions
from .resamples import group_resamples
from .result import evaluate
from .text import table
from .threshold import answer_threshold, answered

__all__ = [
    "Interval",
    "McNemar",
    "Predictions",
    "aligned",
    "answer_threshold",
    "answered",
    "calibration_scores",
    "check_output",
    "class_scores",
    "confusion_counts",
    "difference_intervals",
    "differences",
    "evaluate",
    "exact_interval",
    "fit_temperature",
    "group_resamples",
    "intervals",
    "mcnemar",
    "notes",
    "part_scores",
    "read_predictions",
    "reliability_bins",
    "resampled_means",
    "resampled_scores",
    "score_intervals",
    "scores",
    "table",
    "with_temperature",
    "write_evaluation",
]
