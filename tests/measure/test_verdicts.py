"""A bound is held, broken or undecided by the interval of its figure, and no more often wrong than that says."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.measure import budget
from bertport.measure.binomial import clopper_pearson, incomplete_beta, t_quantile
from bertport.measure.budget import (
    BROKEN,
    HELD,
    UNDECIDED,
    applicable,
    beyond_doubt,
    default_budget,
    default_without_heads,
    format_budget,
    judge,
    judge_all,
    overall,
    parse_budget,
)
from bertport.measure.quality.heads import limit_named
from bertport.measure.statistics import Settings, ratio, share
from bertport.runtime.errors import UnknownNameError, UsageError

NSP, TOP1, KL, COSINE = (limit_named(name) for name in ("nsp", "top1", "kl", "cosine"))


def estimate(value, low, high, count=2000, clusters=1000):
    return {"value": value, "low": low, "high": high, "count": count, "clusters": clusters}


def test_budgets_are_read_and_written():
    assert {"top1": 0.98, "nsp": 0.005, "class": 0.98}.items() <= parse_budget(default_budget()).items()
    assert parse_budget("none") == {}
    assert format_budget({}) == "no bounds"
    with pytest.raises(UsageError, match="not a limit"):
        parse_budget("top1")
    with pytest.raises(UnknownNameError, match="unknown limit"):
        parse_budget("speed=1")


# What scipy.stats gives: beta.cdf, beta.ppf as binom's exact interval, t.ppf.
def test_the_distributions_are_those_of_the_textbooks():
    assert incomplete_beta(2, 3, 0.4) == pytest.approx(0.5248)
    assert clopper_pearson(0, 60, 0.95) == pytest.approx((0, 1 - 0.025 ** (1 / 60)))
    assert clopper_pearson(6, 2000, 0.95) == pytest.approx((0.0011017182, 0.0065182186), abs=1e-9)
    assert clopper_pearson(60, 60, 0.95)[1] == 1
    assert [t_quantile(0.975, freedom) for freedom in (1, 29, 1e6)] == pytest.approx(
        [12.706205, 2.045230, 1.959966], abs=1e-5
    )


@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_an_exact_interval_leaves_just_so_much_to_either_side(hits, misses, confidence):
    trials, tail = hits + misses, (1 - confidence) / 2
    low, high = clopper_pearson(hits, trials, confidence)

    def at_least(share, number):
        return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(number, trials + 1))

    assert 0 <= low <= hits / trials <= high <= 1
    assert at_least(low, hits) == pytest.approx(tail if hits else 1, abs=1e-9)
    assert 1 - at_least(high, hits + 1) == pytest.approx(tail, abs=1e-9)


@pytest.mark.parametrize(
    ("limit", "bound", "figure", "verdict"),
    [
        (NSP, 0.005, share([1] + [0] * 59, [1] * 60), UNDECIDED),  # what fp32 was once recommended for
        (NSP, 0.005, share([0] * 60, [1] * 60), UNDECIDED),
        (NSP, 0.005, share([0] * 2000, [1] * 2000), HELD),
        (NSP, 0.005, share([1] * 8 + [0] * 52, [1] * 60), BROKEN),
        (NSP, 0.005, share([1] * 6 + [0] * 1994, [1] * 2000), UNDECIDED),
        (TOP1, 0.98, share([10] * 300, [10] * 300), HELD),
        (TOP1, 0.98, share([9, 10] * 30, [10] * 60), BROKEN),
        (TOP1, 0.98, share([0], [50]), BROKEN),  # however alike the positions of one text are, none of 50 agrees
        (TOP1, 0.98, share([50], [50]), UNDECIDED),
        (NSP, 0.005, estimate(0.002, 0.0, 0.004, 1000, 900), UNDECIDED),  # as 0.1 recorded it: 2 of 1,000
        (NSP, 0.005, estimate(1 / 60, 0.0, 0.05, 60, 58), UNDECIDED),
        (KL, 0.01, estimate(0.001, 0.0009, 0.0012), HELD),
        (KL, 0.01, estimate(0.02, 0.018, 0.023), BROKEN),
        (KL, 0.01, estimate(0.0098, 0.0094, 0.0103), UNDECIDED),
        (KL, 0.01, estimate(0.001, 0.001, 0.001, 100, 1), UNDECIDED),  # one text has no interval
        (COSINE, 0.99, estimate(0.9996, 0.9995, 0.9997), HELD),
        (COSINE, 0.99, estimate(0.2, None, None), UNDECIDED),
    ],
)
def test_a_figure_and_its_bound(limit, bound, figure, verdict):
    figure = figure if isinstance(figure, dict) else dataclasses.asdict(figure)
    judged = judge(limit, bound, figure)
    assert judged.verdict == verdict
    assert judged.low <= figure["value"] <= judged.high
    assert (judged.more == 0) is (verdict != UNDECIDED)
    json.dumps(judged.to_json(), allow_nan=False)


@pytest.mark.parametrize("figure", [None, {}, estimate(None, None, None, 0, 0), estimate(math.nan, 0, 0), "figure"])
def test_what_is_no_figure_has_no_verdict(figure):
    assert judge(NSP, 0.005, figure) is None
    assert judge_all({"nsp": 0.005}, {"nsp": {"flips": figure}}) == judge_all({"nsp": 0.005}, None) == {}


def test_one_verdict_for_several():
    assert overall([HELD, HELD]) == HELD
    assert overall([HELD, UNDECIDED]) == UNDECIDED
    assert overall([UNDECIDED, BROKEN, HELD]) == BROKEN
    assert overall([]) == UNDECIDED


@pytest.mark.parametrize(("hits", "count"), [(0, 60), (1, 500), (2, 1000), (26, 4000)])
def test_as_many_samples_more_as_are_named_would_decide(hits, count):
    judged = judge(NSP, 0.005, dataclasses.asdict(share([1] * hits + [0] * (count - hits), [1] * count)))
    assert judged.verdict == UNDECIDED
    for samples, decided in ((count + judged.more, True), (count + judged.more * 9 // 10, False)):
        interval = clopper_pearson(hits / count * samples, samples, 0.95)
        again = judge(NSP, 0.005, estimate(hits / count, *interval, samples, samples))
        assert (again.verdict != UNDECIDED) is decided


def test_no_number_of_samples_decides_what_is_on_the_bound():
    assert judge(NSP, 0.005, dataclasses.asdict(share([1] + [0] * 199, [1] * 200))).more is None
    assert judge(KL, 0.01, estimate(0.01, 0.009, 0.011)).more is None


def independent(rng):
    return rng.binomial(1, 0.01, 600), np.ones(600)


def dependent(rng):
    """Eighty texts of 1 to 20 positions that differ in how likely each is to change."""
    sizes = rng.integers(1, 21, size=80)
    return rng.binomial(sizes, rng.beta(0.2, 3.8, size=80)), sizes


def skewed(rng):
    """Sixty texts whose divergence is log-normal, as it is over texts."""
    sizes = rng.integers(5, 20, size=60)
    return sizes * 0.01 * rng.lognormal(-0.18, 0.6, size=60), sizes


@pytest.mark.parametrize(
    ("draw", "limit", "bound", "make"),
    [(independent, NSP, 0.01, share), (dependent, NSP, 0.05, share), (skewed, KL, 0.01, ratio)],
)
def test_false_verdicts_are_as_rare_as_the_confidence_says(draw, limit, bound, make, monkeypatch):
    """The true figure is the bound itself, the hardest case: either verdict is false there, in 1 of 40 samples each."""
    monkeypatch.setattr(budget, "_more", lambda *_: 1)  # it takes most of the time
    rng = np.random.default_rng(4)
    settings = Settings(resamples=100)
    verdicts = [judge(limit, bound, dataclasses.asdict(make(*draw(rng), settings))).verdict for _ in range(160)]
    # 4 are expected at most; a binomial with that mean exceeds 9 in one of 100 seeds.
    assert verdicts.count(HELD) <= 9
    assert verdicts.count(BROKEN) <= 9


def test_a_first_look_decides_only_beyond_doubt():
    sure, likely = (
        judge(NSP, 0.005, dataclasses.asdict(share([1] * hits + [0] * (60 - hits), [1] * 60))) for hits in (30, 5)
    )
    assert sure.verdict == likely.verdict == BROKEN
    assert beyond_doubt(NSP, 0.005, sure)
    assert not beyond_doubt(NSP, 0.005, likely)


def test_a_budget_bounds_what_a_bundle_has():
    assert applicable({"top1": 0.98, "nsp": 0.005, "cosine": 0.9}, ("mlm",)) == {"top1": 0.98, "cosine": 0.9}
    assert applicable(parse_budget(default_budget()), ("nsp", "pooler")) == {"nsp": 0.005}
    assert applicable(parse_budget(default_budget()), ("pooler",)) == parse_budget(default_without_heads())
    assert applicable({"top1": 0.9}, ("pooler",)) == applicable({}, ("pooler",)) == {}
