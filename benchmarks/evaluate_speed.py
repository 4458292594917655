"""How long the intervals of an evaluation take: a loop over scikit-learn's functions, and all resamples at once.

    python benchmarks/evaluate_speed.py --frames 900 --patients 150 --repeats 200

Both score the same bootstrap resamples of random predictions, all headline scores and those of each class, on one
thread. The loop is what most programs do: take the frames of each resample, and call ``sklearn.metrics``. The largest
difference between the two in any score of any resample is printed beside the times.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn import metrics

from monai_fetalkd.evaluation.scores import Predictions, group_resamples
from monai_fetalkd.evaluation.scores.intervals import resampled_at_once
from monai_fetalkd.evaluation.scores.scorer import scorer
from monai_fetalkd.utils.markdown import markdown_table

_BY_CLASS = ("precision", "recall", "f1", "frames")

Scores = dict[tuple[str | None, str], Any]


def random_predictions(frames: int, patients: int, classes: int, seed: int = 0) -> Predictions:
    """A network that is right in most frames; each patient has as many."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=frames)
    logits = generator.normal(size=(frames, classes)) + 2 * np.eye(classes)[labels]
    odds = np.exp(logits)
    rows = [
        {"image": f"{number}.png", "label": int(label), "group": f"{number * patients // frames}"}
        for number, label in enumerate(labels)
    ]
    return Predictions.from_rows([f"class {c}" for c in range(classes)], rows, odds / odds.sum(axis=1, keepdims=True))


def scikit_learn_scores(table: Predictions) -> Scores:
    """The scores of one table by ``sklearn.metrics``; no calibration error, which it does not have."""
    labels, decided, probabilities = table.labels, table.classes, table.probabilities
    classes = np.arange(len(table.class_names))
    found: Scores = {(None, "accuracy"): metrics.accuracy_score(labels, decided)}
    found[None, "balanced_accuracy"] = metrics.balanced_accuracy_score(labels, decided)
    for average in ("macro", "weighted"):
        rows = metrics.precision_recall_fscore_support(labels, decided, average=average, zero_division=0)[:3]
        found |= {(None, f"{average}_{name}"): row for name, row in zip(_BY_CLASS, rows, strict=False)}
    truth = labels[:, None] == classes
    areas = {
        "auroc": metrics.roc_auc_score(truth, probabilities, average=None),
        "average_precision": metrics.average_precision_score(truth, probabilities, average=None),
    }
    found |= {(None, f"macro_{name}"): values.mean() for name, values in areas.items()}
    found[None, "top_2_accuracy"] = metrics.top_k_accuracy_score(labels, probabilities, k=2, labels=classes)
    found[None, "negative_log_likelihood"] = metrics.log_loss(labels, probabilities, labels=classes)
    found[None, "brier_score"] = metrics.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    rows = metrics.precision_recall_fscore_support(labels, decided, labels=classes, average=None, zero_division=np.nan)
    columns = {**dict(zip(_BY_CLASS, rows, strict=True)), **areas}
    for index, part in enumerate(table.class_names):
        found |= {(part, name): values[index] for name, values in columns.items()}
    return found


def one_by_one(table: Predictions, repeats: int) -> dict[tuple[str | None, str], np.ndarray]:
    """The scores of the table and of each of its resamples in a loop."""
    rows = [scikit_learn_scores(table)]
    rows += [scikit_learn_scores(table.take(frames)) for frames in group_resamples(table.groups, repeats)]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def seconds(function: Callable[[], Any], rounds: int) -> float:
    """The median time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Time both and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[72, 900])
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn warns of each resample without a class
    rows = [["frames", "resamples", "scikit-learn in a loop, s", "all at once, s", "ratio", "largest difference"]]
    for frames in arguments.frames:
        table = random_predictions(frames, arguments.patients, arguments.classes)
        loop, at_once = one_by_one(table, arguments.repeats), resampled_at_once(table, scorer, arguments.repeats)
        difference = max(float(np.nanmax(np.abs(values - at_once[name]))) for name, values in loop.items())
        before = seconds(partial(one_by_one, table, arguments.repeats), arguments.rounds)
        after = seconds(partial(resampled_at_once, table, scorer, arguments.repeats), arguments.rounds)
        rows.append(
            [
                *(str(frames), str(arguments.repeats), f"{before:.2f}", f"{after:.3f}"),
                *(f"{before / after:.0f}", f"{difference:.1e}"),
            ]
        )
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
