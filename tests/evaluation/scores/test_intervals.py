from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import bootstrap

from monai_fetalkd.evaluation.scores.calibration import calibration_scores
from monai_fetalkd.evaluation.scores.classification import part_scores, scores
from monai_fetalkd.evaluation.scores.intervals import differences, exact_interval, intervals, mcnemar, resampled_scores
from monai_fetalkd.evaluation.scores.predictions import Predictions
from monai_fetalkd.evaluation.scores.resamples import group_resamples

CLASSES = ("abdomen", "brain", "femur")


def predictions(right, groups, labels=None, prefix="frame"):
    """Frames that a network has right or not."""
    labels = np.arange(len(right)) % 3 if labels is None else np.asarray(labels)
    told = np.where(right, labels, (labels + 1) % 3)
    rows = [
        {"image": f"{prefix}{number}.png", "label": int(label), "group": str(group)}
        for number, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]
    return Predictions.from_rows(CLASSES, rows, np.eye(3)[told] * 0.7 + 0.1)


def accuracy(table):
    return {"accuracy": float(np.mean(table.classes == table.labels))}


def cohort(patients=40, frames=5, seed=0, alike=False):
    """Patients of equally many frames, whose frames are right or wrong together if they are alike."""
    generator = np.random.default_rng(seed)
    right = generator.random((patients, 1 if alike else frames)) < 0.7
    right = np.broadcast_to(right, (patients, frames)).ravel()
    return predictions(right, np.repeat(np.arange(patients), frames))


def width(interval):
    return interval.high - interval.low


def test_a_resample_is_of_whole_groups_as_many_as_there_are():
    groups = ["p", "q", "p", "r", "q", "p"]
    members = {"p": [0, 2, 5], "q": [1, 4], "r": [3]}
    for frames in group_resamples(groups, repeats=50):
        times = np.bincount(frames, minlength=6)
        drawn = {name: set(times[frames_of]) for name, frames_of in members.items()}
        assert all(len(count) == 1 for count in drawn.values())
        assert sum(count.pop() for count in drawn.values()) == 3


def test_every_group_is_drawn_equally_often():
    drawn = np.concatenate(list(group_resamples(["p", "q", "r", "s"], repeats=4000)))
    assert np.bincount(drawn) / 4000 == pytest.approx(1, abs=0.05)


def test_the_seed_fixes_the_resamples():
    first, again, other = (list(group_resamples("ppqrs", repeats=5, seed=seed)) for seed in (1, 1, 2))
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


@pytest.mark.parametrize(("groups", "repeats"), [([], 10), (["p"], 0)])
def test_nothing_to_resample_is_refused(groups, repeats):
    with pytest.raises(ValueError, match=f"{len(groups)} and {repeats}"):
        next(group_resamples(groups, repeats))


def test_the_interval_is_the_percentile_bootstrap_of_the_means_of_patients():
    table = cohort()
    means = (table.classes == table.labels).reshape(40, 5).mean(axis=1)
    truth = bootstrap((means,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    found = intervals(table, accuracy, repeats=4000)["accuracy"]
    assert found.value == pytest.approx(means.mean())
    assert found.low == pytest.approx(truth.low, abs=0.012)
    assert found.high == pytest.approx(truth.high, abs=0.012)


def test_the_interval_holds_the_true_accuracy_in_most_cohorts():
    found = [intervals(cohort(seed=seed), accuracy, repeats=100)["accuracy"] for seed in range(60)]
    assert sum(interval.low <= 0.7 <= interval.high for interval in found) >= 53


def test_frames_that_agree_within_a_patient_widen_the_interval():
    table = cohort(alike=True)
    by_frame = replace(table, groups=table.files)
    ratio = width(intervals(table, accuracy)["accuracy"]) / width(intervals(by_frame, accuracy)["accuracy"])
    assert ratio == pytest.approx(math.sqrt(5), rel=0.15)  # five frames tell no more than one


def test_what_patients_are_called_does_not_matter():
    table = cohort()
    renamed = replace(table, groups=tuple(f"{hash((group, 'salt'))}" for group in table.groups))
    assert intervals(renamed, accuracy, repeats=50) == intervals(table, accuracy, repeats=50)


def test_all_headline_scores_get_an_interval_by_default():
    found = intervals(cohort(), repeats=20)
    assert {"accuracy", "macro_auroc", "brier_score"} < set(found)
    assert all(interval.low <= interval.high for interval in found.values())


def defined_when(condition):
    return lambda table: {"score": 1.0 if condition(table) else math.nan}


def test_resamples_without_a_class_are_left_out():
    table = predictions(np.ones(20), np.arange(20), labels=[0] * 18 + [1] * 2)  # no brain in one resample of eight

    def score(frames):
        return {"score": float(np.mean(frames.labels)) if 1 in frames.labels else math.nan}

    found = intervals(table, score)["score"]
    assert found.low >= 0.05
    assert found.low <= found.value == 0.1 <= found.high


def test_a_score_that_most_resamples_do_not_define_has_no_interval():
    table = predictions(np.ones(20), np.arange(20))
    found = intervals(table, defined_when(lambda frames: len(set(frames.files)) == 20))["score"]
    assert found.value == 1
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_single_patient_has_no_interval():
    found = intervals(predictions([1, 1, 0, 1], ["p"] * 4), accuracy)["accuracy"]
    assert found.value == 0.75
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_network_does_not_differ_from_itself_and_how_sure_that_is_cannot_be_told():
    table = cohort()
    for interval in differences(table, table, repeats=10).values():
        assert interval.value == 0
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)


@pytest.mark.parametrize("right", [1, 0])
def test_one_value_in_all_resamples_has_no_interval(right):
    found = intervals(predictions([right] * 20, np.arange(20)), accuracy, repeats=50)["accuracy"]
    assert found.value == right
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.025 ** (1 / 12), 1), (0.0, 0, 1 - 0.025 ** (1 / 12))])
def test_the_exact_interval_is_that_of_clopper_and_pearson(value, low, high):
    found = exact_interval(value, groups=12)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high))


@pytest.mark.parametrize("score", [scores, part_scores, calibration_scores])
def test_scores_of_all_resamples_at_once_are_those_of_each_by_itself(score):
    generator = np.random.default_rng(3)
    rows = [{"image": f"{n}.png", "label": n % 2, "group": f"p{n // 3}"} for n in range(24)]  # none is a femur
    table = Predictions.from_rows(CLASSES, rows, generator.multinomial(4, [0.4, 0.3, 0.3], 24) / 4)
    found = resampled_scores(table, score, repeats=20)
    one_by_one = resampled_scores(table, lambda frames: score(frames), repeats=20)
    assert list(found) == list(one_by_one)
    for name, values in found.items():
        np.testing.assert_allclose(values, one_by_one[name], rtol=0, atol=1e-12, err_msg=name)


def test_a_difference_is_second_minus_first_on_the_same_patients():
    first, second = cohort(seed=1), cohort(seed=2)
    gain = (second.classes == second.labels).astype(float) - (first.classes == first.labels)
    means = gain.reshape(40, 5).mean(axis=1)
    truth = bootstrap((means,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    found = differences(first, second, accuracy, repeats=4000)["accuracy"]
    assert found.value == pytest.approx(means.mean())
    assert found.low == pytest.approx(truth.low, abs=0.015)
    assert found.high == pytest.approx(truth.high, abs=0.015)


def test_pairing_makes_a_steady_gain_sure():
    first = cohort(alike=True)
    right = first.classes == first.labels
    right[:5] = True
    right[np.flatnonzero(~right)[::5]] = True  # one frame more of each patient that is wrong
    second = predictions(right, first.groups)
    paired = differences(first, second, accuracy)["accuracy"]
    assert paired.low > 0
    assert width(paired) < width(intervals(first, accuracy)["accuracy"]) / 2


def test_the_order_of_the_frames_of_the_second_network_does_not_matter():
    first, second = cohort(seed=1), cohort(seed=2)
    shuffled = second.take(np.random.default_rng(0).permutation(len(second)))
    assert differences(first, shuffled, accuracy, repeats=20) == differences(first, second, accuracy, repeats=20)
    assert mcnemar(first, shuffled) == mcnemar(first, second)


@pytest.mark.parametrize("compare", [differences, mcnemar])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.take(np.arange(3)), "There is no frame 'frame3.png' in the second"),
        (lambda table: predictions([1] * 5, "pqrst"), "There is no frame 'frame4.png' in the first"),
        (lambda table: predictions([1] * 4, "pqrs", prefix="other"), "There is no frame 'frame0.png' in the second"),
        (
            lambda table: replace(table, class_names=("a", "b", "c")),
            r"class tables of the first \['abdomen', .*\] and of the second \['a', 'b', 'c'\] differ",
        ),
        (
            lambda table: replace(table, labels=table.labels[::-1]),
            "The frame 'frame1.png' is of class 'brain' in the first, but of 'femur' in the second",
        ),
        (
            lambda table: replace(table, groups=tuple("pqrt")),
            "The frame 'frame3.png' is of group 's' in the first, but of 't' in the second",
        ),
    ],
)
def test_networks_are_compared_on_the_same_frames(compare, change, message):
    table = predictions([1, 0, 1, 1], "pqrs")
    with pytest.raises(ValueError, match=message):
        compare(table, change(table))


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1),
        (9, 1, 22 / 2**10),
        # tables on which statsmodels and the calculator of Vassar College agree
        (70, 59, 0.378688),
        (80, 59, 0.089452),
        (30, 60, 0.002060),
        (10, 30, 0.002221),
        (10, 10, 1),
    ],
)
def test_mcnemar_is_the_exact_two_sided_test(only_first, only_second, p_value):
    both, neither = [1] * 7, [0] * 3
    first = [1] * only_first + [0] * only_second + both + neither
    second = [0] * only_first + [1] * only_second + both + neither
    groups = range(len(first))
    found = mcnemar(predictions(first, groups), predictions(second, groups))
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == pytest.approx(p_value, abs=1e-6)
