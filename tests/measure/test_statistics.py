import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.measure.statistics import (
    Settings,
    bootstrap_sums,
    mcnemar,
    mean,
    median_ratio,
    paired_difference,
    quantile,
    ratio,
    says_no_difference,
    share,
)

QUICK = Settings(resamples=400)


def test_a_mean_has_the_textbook_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    estimate = mean(values, Settings(resamples=4000))
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.count, estimate.clusters) == (400, 400)
    # A percentile of 4,000 resamples is itself uncertain by about 2% of the half-width times a few.
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_same_seed_gives_the_same_interval_and_another_seed_does_not():
    values = np.random.default_rng(0).normal(size=50)
    assert mean(values, Settings(seed=1)) == mean(values, Settings(seed=1))
    assert mean(values, Settings(seed=1)) != mean(values, Settings(seed=2))


def test_many_clusters_are_resampled_in_blocks_without_bias():
    # 300,000 clusters make a block of six resamples; every resample must still draw as many clusters as there are.
    values = np.ones(300_000)
    estimate = bootstrap_sums(values[:, None], lambda sums: sums[0], Settings(resamples=20))
    assert (estimate.low, estimate.high) == (300_000, 300_000)


def coverage(draw, truth, estimate, trials=300):
    """The share of intervals that hold the truth."""
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(trials):
        interval = estimate(draw(rng))
        inside += interval.low <= truth <= interval.high
    return inside / trials


def clustered(rng):
    """Sixty texts of one to forty positions, whose chance of a hit differs from text to text: 0.8 on average."""
    sizes = rng.integers(1, 41, size=60)
    return rng.binomial(sizes, rng.beta(4, 1, size=60)), sizes


def test_clustered_intervals_hold_the_truth_as_often_as_they_say():
    held = coverage(clustered, 0.8, lambda data: share(*data, QUICK))
    # 95% nominal; percentile intervals of 60 clusters fall a little short, and 300 trials are uncertain by 1.3%.
    assert 0.90 <= held <= 0.985


def test_resampling_positions_instead_of_texts_would_be_overconfident():
    def as_if_independent(data):
        hits, sizes = data
        flat = np.concatenate([np.arange(size) < hit for hit, size in zip(hits, sizes, strict=True)])
        return mean(flat, QUICK)

    assert coverage(clustered, 0.8, as_if_independent, trials=100) < 0.80


def test_a_share_of_none_or_all_has_an_exact_bound():
    # Clopper and Pearson 1934: 0 of 100, 95%: upper bound 0.0362.
    none = share(np.zeros(100), np.ones(100))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(0.0362, abs=5e-5)
    every = share(np.full(100, 7), np.full(100, 7))
    assert (every.value, every.high, every.count) == (1, 1, 700)
    assert every.low == pytest.approx(1 - 0.0362, abs=5e-5)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=30),
    st.integers(0, 2**31),
)
def test_a_share_lies_in_its_interval_and_in_0_to_1(rows, seed):
    totals = np.array([total for _, total in rows])
    hits = np.minimum([hit for hit, _ in rows], totals)
    estimate = share(hits, totals, Settings(seed=seed, resamples=50))
    assert 0 <= estimate.low <= estimate.high <= 1
    assert estimate.value == pytest.approx(hits.sum() / totals.sum())
    assert estimate.count == totals.sum()


def test_nothing_gives_no_figure():
    estimate = ratio([], [])
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)
    assert (estimate.count, estimate.clusters) == (0, 0)


def test_quantiles_of_rounds():
    rounds = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])
    estimate = quantile(rounds, 0.5, QUICK)
    assert (estimate.value, estimate.count, estimate.clusters) == (2.5, 6, 2)
    assert (estimate.low, estimate.high) == (2.0, 3.0)  # both rounds the first, or both the second


def test_a_ratio_of_medians_keeps_rounds_together():
    # The machine slows threefold from round to round, and both sides with it: the ratio stays 2 without any spread.
    slow = np.array([1.0, 3.0, 9.0, 27.0])[:, None]
    estimate = median_ratio(2 * slow, slow, QUICK)
    assert (estimate.value, estimate.low, estimate.high) == (2, 2, 2)
    with pytest.raises(ValueError, match="paired rounds"):
        median_ratio(slow, slow[:2])


@pytest.mark.parametrize(
    ("only_candidate", "only_reference", "expected"),
    [
        (0, 0, 1.0),
        (0, 5, 2 * 0.5**5),
        (1, 9, 2 * 11 / 1024),
        (3, 3, 1.0),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemar_by_hand(only_candidate, only_reference, expected):
    assert mcnemar(only_candidate, only_reference) == pytest.approx(expected)


def test_mcnemar_of_many_pairs_is_a_number():
    assert 0.2 < mcnemar(5000, 5100) < 0.4  # z = 1: two-sided about 0.32
    assert mcnemar(0, 5000) == pytest.approx(0, abs=1e-300)


def test_a_difference_that_is_there_is_seen_and_one_that_is_not_is_not():
    rng = np.random.default_rng(3)
    totals = rng.integers(5, 30, size=200)
    reference = rng.binomial(totals, 0.7)
    worse = np.maximum(0, reference - rng.binomial(2, 0.5, size=200))
    seen = paired_difference(worse, reference, totals)
    assert seen.difference.high < 0
    assert seen.p_value < 0.01
    assert not says_no_difference(seen)
    swapped = reference.copy()
    swapped[::2] -= 1
    swapped[1::2] += 1
    unseen = paired_difference(swapped, reference, totals)
    assert unseen.difference.low < 0 < unseen.difference.high
    assert says_no_difference(unseen)


def test_equal_models_show_no_difference():
    difference = paired_difference([3, 4], [3, 4], [5, 5])
    assert (difference.difference.value, difference.p_value) == (0, 1)
    assert says_no_difference(difference)
    assert says_no_difference(paired_difference([], [], []))  # nothing measured: nothing claimed


def test_paired_tests_reject_a_true_null_as_rarely_as_they_say():
    rng = np.random.default_rng(9)
    rejected = 0
    for _ in range(300):
        totals = rng.integers(5, 30, size=50)
        one, two = rng.binomial(totals, 0.6), rng.binomial(totals, 0.6)
        rejected += not says_no_difference(paired_difference(one, two, totals, QUICK))
    assert 0.02 <= rejected / 300 <= 0.10  # nominal 0.05; 300 trials are uncertain by 1.3%, 50 clusters add a little
