from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics

from monai_fetalkd.evaluation.scores import Predictions, class_scores, confusion_counts, notes, scores

NAMES = [
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
    "macro_auroc",
    "macro_average_precision",
    "top_2_accuracy",
    "negative_log_likelihood",
    "expected_calibration_error",
    "brier_score",
]


def table(labels, probabilities):
    rows = [{"image": f"{number}.png", "label": int(label)} for number, label in enumerate(labels)]
    names = [f"class {index}" for index in range(np.shape(probabilities)[1])]
    return Predictions.from_rows(names, rows, probabilities)


def random_table(frames, classes, among=None, sharpness=0.5, step=None, seed=0):
    """Frames of the classes ``among``; probabilities in steps have ties, and frames of probability 0 and 1."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes if among is None else among, frames)
    probabilities = generator.dirichlet(np.full(classes, sharpness), frames)
    if step:
        probabilities = generator.multinomial(step, probabilities) / step
    return table(labels, probabilities)


TABLES = {
    "six classes": random_table(300, 6),
    "two classes": random_table(100, 2),
    "ties": random_table(200, 4, step=4),
    "certain": random_table(60, 3, step=1),
    "class without a frame": random_table(200, 5, among=[0, 2, 3]),
    "two of five classes": random_table(100, 5, among=[1, 4]),
    "class without frame and decision": table(
        [0, 1, 0, 1], [[0.7, 0.2, 0.1], [0.6, 0.4, 0], [0.4, 0.6, 0], [0.3, 0.5, 0.2]]
    ),
    "class never decided for": table([0, 1, 2, 1], [[0.7, 0.2, 0.1], [0.6, 0.4, 0], [0.4, 0.6, 0], [0.3, 0.5, 0.2]]),
    "one class": random_table(50, 3, among=[1]),
    "one class of two": random_table(50, 2, among=[1]),
    "one frame": random_table(1, 3),
    "one wrong frame of two classes": table([0], [[0.3, 0.7]]),
    "resample": random_table(100, 4).take(np.random.default_rng(1).integers(100, size=150)),
}


def by_scikit_learn(predictions):
    labels, probabilities = predictions.labels, predictions.probabilities
    decided, classes = probabilities.argmax(axis=1), np.arange(probabilities.shape[1])
    defined = [index for index in classes if 0 < np.sum(labels == index) < len(labels)]

    def of_classes(score):
        return np.mean([score(labels == i, probabilities[:, i]) for i in defined]) if defined else math.nan

    values = {"accuracy": metrics.accuracy_score(labels, decided)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values["balanced_accuracy"] = metrics.balanced_accuracy_score(labels, decided)
        for average in ("macro", "weighted"):
            precision, recall, f1, _ = metrics.precision_recall_fscore_support(
                labels, decided, average=average, zero_division=0
            )
            values |= {f"{average}_precision": precision, f"{average}_recall": recall, f"{average}_f1": f1}
        values["top_2_accuracy"] = metrics.top_k_accuracy_score(
            labels, probabilities if len(classes) > 2 else probabilities[:, 1], k=2, labels=classes
        )
    values["macro_auroc"] = of_classes(metrics.roc_auc_score)
    values["macro_average_precision"] = of_classes(metrics.average_precision_score)
    values["negative_log_likelihood"] = metrics.log_loss(labels, probabilities, labels=classes)
    values["brier_score"] = metrics.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    return values


@pytest.fixture(params=TABLES.values(), ids=TABLES.keys())
def predictions(request) -> Predictions:
    return request.param


@pytest.mark.filterwarnings("error")
def test_scores_are_those_of_scikit_learn(predictions):
    found = scores(predictions)
    expected = by_scikit_learn(predictions)
    assert list(found) == NAMES
    assert set(found) - set(expected) == {"expected_calibration_error"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name
    assert {type(value) for value in found.values()} == {float}


def test_the_expected_calibration_error_is_that_of_a_plain_loop(predictions):
    total = 0.0
    top, right = predictions.probabilities.max(axis=1), predictions.classes == predictions.labels
    for number in range(15):
        inside = (top >= number / 15) & ((top < (number + 1) / 15) | (number == 14))
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - top[inside].mean())
    assert scores(predictions)["expected_calibration_error"] == pytest.approx(total / len(predictions), abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_class_scores_are_those_of_scikit_learn_for_the_class_against_the_rest(predictions):
    found = class_scores(predictions)
    assert tuple(found) == predictions.class_names
    for index, of_class in enumerate(found.values()):
        labels, decided = predictions.labels == index, predictions.classes == index
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            labels, decided, average="binary", zero_division=np.nan
        )
        both = 0 < labels.sum() < len(labels)
        expected = {
            "frames": labels.sum(),
            "precision": precision if decided.any() else math.nan,
            "recall": recall if labels.any() else math.nan,
            "f1": f1 if labels.any() or decided.any() else math.nan,
            "auroc": metrics.roc_auc_score(labels, predictions.probabilities[:, index]) if both else math.nan,
            "average_precision": metrics.average_precision_score(labels, predictions.probabilities[:, index])
            if both
            else math.nan,
        }
        assert of_class == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert type(of_class["frames"]) is int


def test_the_confusion_of_all_classes_has_truth_in_rows(predictions):
    counts = confusion_counts(predictions)
    assert counts.shape == (len(predictions.class_names),) * 2
    assert counts.sum() == len(predictions)
    for truth, decided in zip(predictions.labels, predictions.classes, strict=True):
        counts[truth, decided] -= 1
    assert not counts.any()


@pytest.mark.filterwarnings("error")
def test_areas_of_one_class_are_not_defined():
    found = scores(TABLES["one class"])
    assert math.isnan(found["macro_auroc"])
    assert math.isnan(found["macro_average_precision"])
    assert not any(math.isnan(value) for name, value in found.items() if name in NAMES[:8])


def test_scores_of_one_table_are_not_those_of_the_one_before():
    first, second = random_table(50, 3, seed=1), random_table(50, 3, seed=2)
    assert scores(first) != scores(second)
    assert scores(first) == scores(first.take(np.arange(50)))


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected"),
    [
        ([0, 1, 2], np.eye(3), []),
        (
            [0, 1],
            np.eye(3)[:2],
            ["No frame is of class 'class 2': its recall, AUROC and average precision are not defined, and no mean"],
        ),
        (
            [0, 1, 1],
            np.eye(3),
            [
                "No frame is of class 'class 2': its recall, AUROC and average precision are not defined. 1 frame is "
                "taken for it, so that the macro precision, recall and F1 count it with 0"
            ],
        ),
        (
            [0, 1, 2],
            np.eye(3)[[0, 1, 1]],
            ["No frame is taken for 'class 2': precision is not defined there, and the means count it with 0."],
        ),
        (
            [0, 1, 2, 2],
            np.eye(3)[[1, 1, 1, 1]],
            [
                "4 of 4 frames are taken for 'class 1', and 1 are of it",
                "No frame is taken for 'class 0', 'class 2': precision",
            ],
        ),
        (
            [1, 1, 1],
            np.eye(2)[[1, 0, 0]],
            [
                "No frame is of class 'class 0': its recall, AUROC and average precision are not defined. 2 frames are "
                "taken for it",
                "All frames are of class 'class 1': AUROC and average precision are not defined for any class.",
            ],
        ),
    ],
)
def test_notes_say_which_scores_are_not_defined(labels, probabilities, expected):
    found = notes(table(labels, probabilities))
    assert len(found) == len(expected)
    for note, beginning in zip(found, expected, strict=True):
        assert note.startswith(beginning)
