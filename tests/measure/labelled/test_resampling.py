"""Intervals and paired tests against enumeration, scipy and the definitions."""

import numpy as np
import pytest
from scipy import optimize, stats

from bertport.measure.labelled.differences import paired_share_interval
from bertport.measure.labelled.metrics import METRICS
from bertport.measure.labelled.resampling import Sums, difference_draws, draws, permutation_p
from bertport.measure.statistics import Settings
from tests.measure.labelled.judged import classified, judged

SETTINGS = Settings(seed=1, resamples=4000)


def sides(name, count, labels=2, seed=0):
    rng = np.random.default_rng(seed)
    truth, values, scores = classified(rng, count, labels)
    other = np.where(rng.random(count) < 0.85, values, rng.integers(labels, size=count))
    names = tuple("abcd"[:labels])
    return [METRICS[name].sums(judged("classification", truth, each, labels=names, positive=1, scores=scores))
            for each in (values, other)]  # fmt: skip


@pytest.mark.parametrize("name", ["accuracy", "f1", "f1_macro", "matthews"])
def test_cells_are_resampled_as_their_examples_are(name):
    """The multinomial of cells is the distribution of examples drawn one by one."""
    one, other = sides(name, 300)
    apart = [Sums(contributions=each.contributions, figure=each.figure) for each in (one, other)]
    for cells, examples in [
        (draws(one, SETTINGS), draws(apart[0], SETTINGS)),
        (difference_draws(one, other, SETTINGS), difference_draws(*apart, SETTINGS)),
    ]:
        assert (cells != examples).any()
        assert cells.std() == pytest.approx(examples.std(), rel=0.06)
        assert cells.mean() == pytest.approx(examples.mean(), abs=0.06 * examples.std())
        assert stats.ks_2samp(cells, examples).statistic < 0.05
    assert permutation_p(one, other, SETTINGS) == pytest.approx(permutation_p(*apart, SETTINGS), abs=0.03)


@pytest.mark.parametrize("name", ["f1", "matthews", "ece"])
def test_a_permutation_test_is_that_of_all_swaps(name):
    one, other = sides(name, 10, seed=3)

    def difference(first, second, axis):
        return one.figure(first.sum(axis=axis).reshape(-1, 1))[0] - one.figure(second.sum(axis=axis).reshape(-1, 1))[0]

    dense = [
        np.asarray(getattr(each.contributions, "toarray", lambda e=each: e.contributions)()) for each in (one, other)
    ]
    seen = difference(*dense, 0)
    hits = 0
    for number in range(2**10):
        swap = (number >> np.arange(10) & 1)[:, None]
        first, second = np.where(swap, dense[1], dense[0]), np.where(swap, dense[0], dense[1])
        hits += not abs(difference(first, second, 0)) < abs(seen) - 1e-12
    assert permutation_p(one, other, SETTINGS) == pytest.approx(hits / 2**10, abs=0.015)


def test_of_a_mean_it_is_scipys_test_of_paired_samples():
    rng = np.random.default_rng(5)
    first, second = rng.random((2, 11)).round(2)
    second += 0.2

    def mean_of(values):
        return Sums(contributions=np.stack([values, np.ones(11)], axis=1), figure=lambda sums: sums[0] / sums[1])

    exact = stats.permutation_test(
        (first, second), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert permutation_p(mean_of(first), mean_of(second), SETTINGS) == pytest.approx(exact.pvalue, abs=0.015)


def test_predictions_that_are_the_same_differ_by_nothing():
    one, _ = sides("matthews", 50)
    assert permutation_p(one, one, SETTINGS) == 1
    assert not difference_draws(one, one, SETTINGS).any()


def test_where_nothing_differs_chance_says_so_as_often_as_it_should():
    """The p-values of predictions that differ by chance alone are uniform."""
    rng = np.random.default_rng(8)
    settings = Settings(seed=0, resamples=100)
    values = []
    for _ in range(100):
        truth = rng.normal(size=60)
        pair = truth + rng.normal(size=(2, 60))
        one, other = (METRICS["spearman"].sums(judged("regression", truth.tolist(), each)) for each in pair)
        values.append(permutation_p(one, other, settings, permutations=400))
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_intervals_are_seeded():
    one, other = sides("f1", 80)
    assert (draws(one, SETTINGS) == draws(one, SETTINGS)).all()
    assert permutation_p(one, other, SETTINGS) == permutation_p(one, other, SETTINGS)
    assert (draws(one, SETTINGS) != draws(one, Settings(seed=2, resamples=4000))).any()


# The score interval.


def score(gained, lost, total, difference):
    """Tango's statistic, with the likeliest parameter found numerically instead of by his formula."""
    least = max(0.0, -difference)

    def minus_log_likelihood(share):
        return -(
            gained * np.log(max(share + difference, 1e-300))
            + lost * np.log(max(share, 1e-300))
            + (total - gained - lost) * np.log(max(1 - 2 * share - difference, 1e-300))
        )

    share = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(least, (1 - difference) / 2), method="bounded", options={"xatol": 1e-12}
    ).x
    return (gained - lost - total * difference) / np.sqrt(total * (2 * share + difference * (1 - difference)))


@pytest.mark.parametrize(("gained", "lost", "total"), [(12, 2, 50), (2, 12, 50), (9, 1, 50), (30, 20, 872), (3, 3, 9)])
def test_the_score_interval_ends_where_its_statistic_says(gained, lost, total):
    low, high = paired_share_interval(gained, lost, total, 0.95)
    assert low < (gained - lost) / total < high
    for end in (low, high):
        assert abs(score(gained, lost, total, end)) == pytest.approx(1.959964, abs=1e-3)


@pytest.mark.parametrize("total", [1, 30, 400])
def test_without_a_difference_it_is_as_wide_as_the_examples_allow(total):
    square = stats.norm.ppf(0.975) ** 2
    expected = square / (total + square)
    assert paired_share_interval(0, 0, total, 0.95) == pytest.approx((-expected, expected))


def test_it_holds_the_difference_as_often_as_it_says():
    """Where few examples differ, of which a bootstrap's interval holds it far less often."""
    rng = np.random.default_rng(6)
    gained, lost = rng.multinomial(200, [0.005, 0.015, 0.98], size=1000)[:, :2].T
    held = [low <= -0.01 <= high for low, high in (paired_share_interval(*pair, 200, 0.95) for pair in
            zip(gained.tolist(), lost.tolist(), strict=True))]  # fmt: skip
    assert 0.935 < np.mean(held) < 0.985
