from __future__ import annotations

import numpy as np
import pytest

from monai_fetalkd.active_learning import STRATEGIES, Pool, disagreement, entropy, farthest_first, margin, rank

SURE, TORN, FLAT = [0.98, 0.01, 0.01], [0.5, 0.49, 0.01], [1 / 3, 1 / 3, 1 / 3]


@pytest.mark.parametrize(("score", "order"), [(entropy, [SURE, TORN, FLAT]), (margin, [SURE, TORN, FLAT])])
def test_uncertainty_grows_from_a_sure_to_a_flat_row(score, order):
    values = score(order)
    assert np.all(np.diff(values) > 0)
    assert values[-1] == pytest.approx(1)
    assert np.all((values >= 0) & (values <= 1))


def test_entropy_and_margin_ask_for_different_frames():
    two_tie, spread = [0.5, 0.5, 0.0], [0.5, 0.25, 0.25]
    assert entropy([two_tie, spread]).argmax() == 1
    assert margin([two_tie, spread]).argmax() == 0


def test_disagreement_is_symmetric_and_blind_to_shared_doubt():
    assert disagreement([SURE, FLAT, TORN], [SURE, FLAT, TORN]) == pytest.approx(0, abs=1e-12)
    ours, theirs = disagreement([SURE], [FLAT]), disagreement([FLAT], [SURE])
    assert ours == pytest.approx(theirs)
    assert 0 < ours[0] < disagreement([[1, 0, 0]], [[0, 0, 1]])[0]
    assert disagreement([[1, 0, 0]], [[0, 0, 1]]) == pytest.approx(1)


def test_disagreement_is_the_mean_divergence_from_the_mean():
    generator = np.random.default_rng(0)
    p, q = generator.dirichlet(np.ones(6), 20), generator.dirichlet(np.ones(6), 20)
    m = (p + q) / 2
    expected = ((p * np.log(p / m)).sum(1) + (q * np.log(q / m)).sum(1)) / 2 / np.log(2)
    assert disagreement(p, q) == pytest.approx(expected)


def test_farthest_first_keeps_away_from_labelled_and_chosen_frames():
    clusters = np.array([[0, 0], [0.1, 0], [10, 0], [10.1, 0], [0, 7], [0, 7.1]], dtype=float)
    chosen, distances = farthest_first(clusters, labelled=[[0, 0]], count=2)
    assert set(chosen.tolist()) == {3, 5}
    assert distances[0] > distances[1]
    everything, _ = farthest_first(clusters, labelled=None, count=99)
    assert sorted(everything.tolist()) == list(range(6))


def test_equal_frames_are_asked_for_once_each():
    chosen, _ = farthest_first(np.zeros((3, 2)), labelled=np.zeros((1, 2)), count=3)
    assert chosen.tolist() == [0, 1, 2]


def pool(size=4):
    generator = np.random.default_rng(1)
    probabilities, teacher = generator.dirichlet(np.ones(3), size), generator.dirichlet(np.ones(3), size)
    return Pool(size, probabilities, teacher, generator.normal(size=(size, 5)), generator.normal(size=(2, 5)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_ranks_each_frame_once_and_the_best_first(strategy):
    positions, scores = rank(strategy, pool(), count=10)
    assert sorted(positions.tolist()) == [0, 1, 2, 3]
    assert scores.tolist() == sorted(scores, reverse=True)
    assert rank(strategy, pool(), count=2)[0].tolist() == positions[:2].tolist()


def test_random_depends_on_its_seed_alone():
    first, again, other = (rank("random", Pool(50), 50, seed)[0].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("strategy", "given", "message"),
    [
        ("magic", pool(), "no strategy 'magic'"),
        ("entropy", Pool(2), "needs the probabilities"),
        ("disagreement", Pool(1, [SURE]), "needs the teacher"),
        ("diversity", Pool(1, [SURE]), "needs the features"),
        ("entropy", Pool(3, [SURE]), "of 1 frames, but the pool has 3"),
        ("entropy", Pool(1, [[3.0, -2.0]]), "apply softmax"),
        ("margin", Pool(1, [[np.nan, np.nan]]), "apply softmax"),
        ("entropy", Pool(1, [[1.0]]), "two classes at least"),
        ("disagreement", Pool(1, [SURE], [[0.5, 0.5]]), "same frames and classes"),
        ("diversity", Pool(1, features=[[1.0, 2.0]], labelled=[[1.0]]), "rows of one length"),
    ],
)
def test_a_pool_that_does_not_fit_is_refused(strategy, given, message):
    with pytest.raises(ValueError, match=message):
        rank(strategy, given, 1)
