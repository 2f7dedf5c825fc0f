"""Uncertainty of figures: percentile bootstrap over clusters, and paired tests of differences.

Positions in one text are not independent, so whole texts are resampled (the cluster bootstrap: Field and Welsh
2007, "Bootstrapping clustered data"). Intervals are percentile intervals (Efron and Tibshirani 1993, chapter 13).
Shares are an exception: a handful of hits, or none, gives resamples that hardly differ, and the interval is too narrow
to judge a bound by. Theirs is the exact interval of Clopper and Pearson 1934 for the number of independent trials that
would give as much variance (Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of
positive counts estimated from survey data"): as many as there are positions where these do not depend on their text,
and about as many as texts where they are all alike in each. Where there is no hit, or nothing else, that dependence
cannot be seen, and the latter is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from bertport.measure.binomial import clopper_pearson, t_quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "CONFIDENCE",
    "DEFAULTS",
    "RESAMPLES",
    "Difference",
    "Estimate",
    "Number",
    "Settings",
    "bootstrap_sums",
    "effective_trials",
    "mcnemar",
    "mean",
    "median_ratio",
    "paired_difference",
    "percentiles",
    "quantile",
    "ratio",
    "resample_weights",
    "says_no_difference",
    "share",
]

CONFIDENCE = 0.95
"""Share of intervals that are to hold the true figure."""
Number = Annotated[float, "null in JSON where it is not finite"]
"""A figure that may not be known."""
RESAMPLES = 2000
"""Bootstrap resamples; the ends of a 95% interval then rest on 50 resamples each."""
_BLOCK = 2_000_000
"""Numbers held at once while resampling: 16 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of intervals; the same settings and data give the same interval."""

    seed: int = 0
    """Seed of the resamples."""
    resamples: int = RESAMPLES
    """Number of bootstrap resamples."""
    confidence: float = CONFIDENCE
    """Share of intervals that are to hold the true figure."""


DEFAULTS = Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its interval."""

    value: Number
    """The figure on all of the data."""
    low: Number
    """Lower end of the interval."""
    high: Number
    """Upper end of the interval."""
    count: int
    """What it is a figure of: positions, pairs, tokens or runs."""
    clusters: int
    """Unit of resampling: texts or rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired difference, candidate minus reference, on the same data."""

    difference: Estimate
    """Its size."""
    p_value: float
    """Two-sided: how often chance alone gives a difference as large."""
    test: str
    """`bootstrap` (paired, by text) or `mcnemar` (exact, for independent pairs)."""


def bootstrap_sums(
    columns: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    settings: Settings = DEFAULTS,
    *,
    count: int | None = None,
) -> Estimate:
    """Estimate any function of column sums, resampling rows.

    Args:
        columns: One row per cluster. Shape: (clusters, columns)
        statistic: From sums of shape (columns, resamples) to figures of shape (resamples,). A resample where it
            is not finite (an empty denominator) is left out.
        count: What to report as the estimate's count; the number of clusters when not given.
        settings: Seed, resamples and confidence level.

    Returns:
        The figure and its percentile interval; NaN throughout when there are no rows.
    """
    rows = np.asarray(columns, dtype=np.float64)
    clusters = len(rows)
    if not clusters:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, count=count or 0, clusters=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(rows.sum(axis=0)[:, None])[0])
        figures = np.concatenate([statistic(rows.T @ weights) for weights in resample_weights(clusters, settings)])
    low, high = percentiles(figures, settings.confidence)
    return Estimate(value=value, low=low, high=high, count=clusters if count is None else count, clusters=clusters)


def mean(values: ArrayLike, settings: Settings = DEFAULTS) -> Estimate:
    """Estimate a mean of independent values."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return ratio(flat, np.ones_like(flat), settings)


def ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    settings: Settings = DEFAULTS,
) -> Estimate:
    """Estimate a ratio of sums, such as a mean over positions where each cluster is the sum over one text's.

    Args:
        numerators: One sum per cluster. Shape: (clusters,)
        denominators: One count or sum per cluster. Shape: (clusters,)
        settings: Seed, resamples and confidence level.
    """
    below = np.asarray(denominators, dtype=np.float64)
    return bootstrap_sums(
        np.stack([np.asarray(numerators, dtype=np.float64), below], axis=1),
        lambda sums: sums[0] / sums[1],
        settings,
        count=round(float(below.sum())),
    )


def share(
    hits: ArrayLike,
    totals: ArrayLike,
    settings: Settings = DEFAULTS,
) -> Estimate:
    """Estimate a share of positions that are hits; clusters are rows.

    The interval is exact for the effective number of trials. Sums of shares that are not whole, such as the share of
    five best words that two models have in common, are no counts: of those it is `ratio`'s, but at 0 and 1.
    """
    above, below = (np.asarray(each, dtype=np.float64) for each in (hits, totals))
    count = float(below.sum())
    value = float(above.sum()) / count if count else math.nan
    if not count or (0 < value < 1 and (above != above.round()).any()):
        return ratio(above, below, settings)
    trials = effective_trials(above, below)
    low, high = clopper_pearson(value * trials, trials, settings.confidence)
    return Estimate(value=value, low=low, high=high, count=round(count), clusters=len(below))


def effective_trials(hits: NDArray[np.float64], totals: NDArray[np.float64]) -> float:
    """Return how many independent trials would tell as much of a share as these clusters do.

    They are between those of clusters whose positions are all alike (Kish 1965) and the positions themselves, as the
    variance of the ratio over the clusters says; with Korn and Graubard's factor for how well that is known, which only
    the clusters that differ from most tell.

    Args:
        hits: One count per cluster. Shape: (clusters,)
        totals: Positions per cluster. Shape: (clusters,)
    """
    hits, totals = hits[totals > 0], totals[totals > 0]
    clusters, count = len(totals), float(totals.sum())
    share = float(hits.sum()) / count
    least = count**2 / float(np.square(totals).sum())
    rare = min(np.count_nonzero(hits), np.count_nonzero(totals - hits))
    if clusters == 1 or not rare:
        return least
    variance = clusters / (clusters - 1) * float(np.square(hits - share * totals).sum()) / count**2
    effective = min(count, max(least, share * (1 - share) / variance)) if variance else count
    level = (1 + CONFIDENCE) / 2
    known = (t_quantile(level, max(1.0, count - 1)) / t_quantile(level, max(1.0, rare - 1.0))) ** 2
    return least + min(1.0, known) * (effective - least)


def quantile(rounds: ArrayLike, level: float, settings: Settings = DEFAULTS) -> Estimate:
    """Estimate a quantile of all runs, resampling rounds; `rounds` has the shape (rounds, runs)."""
    runs = np.atleast_2d(np.asarray(rounds, dtype=np.float64))
    return _resampled((runs,), lambda picked: np.quantile(picked, level, axis=1), settings)


def median_ratio(
    first: ArrayLike,
    second: ArrayLike,
    settings: Settings = DEFAULTS,
) -> Estimate:
    """Estimate median(first) / median(second) of runs that alternated, resampling rounds and keeping them paired.

    With times of the reference first and of the candidate second, it says how many times faster the candidate is.

    Args:
        first: Shape: (rounds, runs)
        second: Shape: (rounds, runs of its own), the same rounds.
        settings: Seed, resamples and confidence level.
    """
    one, two = (np.atleast_2d(np.asarray(each, dtype=np.float64)) for each in (first, second))
    if len(one) != len(two):
        raise ValueError(f"paired rounds must be as many on both sides, found {len(one)} and {len(two)}")
    return _resampled(
        (one, two),
        lambda a, b: np.median(a, axis=1) / np.median(b, axis=1),
        settings,
    )


def paired_difference(
    candidate: ArrayLike,
    reference: ArrayLike,
    totals: ArrayLike,
    settings: Settings = DEFAULTS,
) -> Difference:
    """Test a difference of two ratios over the same positions by a paired bootstrap of texts.

    Args:
        candidate: One sum per text, such as right answers. Shape: (texts,)
        reference: The same of the reference. Shape: (texts,)
        totals: Positions per text. Shape: (texts,)
        settings: Seed, resamples and confidence level.
    """
    change = np.asarray(candidate, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    below = np.asarray(totals, dtype=np.float64)
    size = ratio(change, below, settings)
    columns = np.stack([change, below])
    with np.errstate(invalid="ignore"):
        sums = np.concatenate([columns @ weights for weights in resample_weights(len(change), settings)], axis=1)
        figures = sums[0] / sums[1]
    figures = figures[np.isfinite(figures)]
    # One more than counted, in both parts: a p-value from a finite number of resamples is never 0.
    at_most, at_least = np.count_nonzero(figures <= 0) + 1, np.count_nonzero(figures >= 0) + 1
    p_value = min(1.0, 2 * min(at_most, at_least) / (len(figures) + 1))
    return Difference(difference=size, p_value=p_value, test="bootstrap")


def mcnemar(only_candidate: int, only_reference: int) -> float:
    """Return McNemar's exact two-sided p-value.

    Args:
        only_candidate: Pairs that the candidate alone has right.
        only_reference: Pairs that the reference alone has right.
    """
    trials = only_candidate + only_reference
    fewer = min(only_candidate, only_reference)
    # In logarithms: 2^-trials underflows from 1,075 discordant pairs on.
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - trials * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def says_no_difference(difference: Difference, confidence: float = CONFIDENCE) -> bool:
    """Return whether nothing more may be claimed than "no difference seen": the test does not reject at this level."""
    return not difference.p_value < 1 - confidence


def resample_weights(clusters: int, settings: Settings) -> Iterator[NDArray[np.float64]]:
    """Yield how often each cluster is drawn in each resample, in blocks of shape (clusters, some resamples)."""
    rng = np.random.default_rng(settings.seed)
    block = max(1, _BLOCK // max(1, clusters))
    for begin in range(0, settings.resamples, block):
        size = min(block, settings.resamples - begin)
        drawn = rng.integers(clusters, size=(size, clusters)) + clusters * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters).T.astype(np.float64)


def _resampled(
    sides: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., NDArray[np.float64]],
    settings: Settings,
) -> Estimate:
    rounds, runs = len(sides[0]), sum(side.size for side in sides)
    if not rounds or not all(side.size for side in sides):
        return Estimate(value=math.nan, low=math.nan, high=math.nan, count=0, clusters=0)
    rng = np.random.default_rng(settings.seed)
    block = max(1, _BLOCK // runs)
    figures = []
    for begin in range(0, settings.resamples, block):
        drawn = rng.integers(rounds, size=(min(block, settings.resamples - begin), rounds))
        figures.append(statistic(*(side[drawn].reshape(len(drawn), -1) for side in sides)))
    low, high = percentiles(np.concatenate(figures), settings.confidence)
    value = float(statistic(*(side.reshape(1, -1) for side in sides))[0])
    return Estimate(value=value, low=low, high=high, count=max(side.size for side in sides), clusters=rounds)


def percentiles(figures: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Return the ends of the percentile interval of resampled figures, those that are not finite left out."""
    finite = figures[np.isfinite(figures)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
