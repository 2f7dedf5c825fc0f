"""Resampling of examples: intervals and permutation tests of any function of sums over examples, in little time.

A metric is made of sums: accuracy of right answers, F1 of true positives and of both counts, Pearson's of moments. A
resample of examples is then a vector of weights, and all resamples one matrix product. Examples whose contributions are
alike, such as those with the same truth and the same predictions, are one cell: a resample draws the number of each
cell from the multinomial distribution that drawing examples one by one has, and a permutation the number of swaps in it
from the binomial distribution. Classifiers have a handful of cells, whatever the number of examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.statistics import Estimate, percentiles, resample_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from bertport.measure.statistics import Settings

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["PERMUTATIONS", "Sums", "difference_draws", "draws", "interval", "permutation_p"]

PERMUTATIONS = 10_000
"""Permutations of a test: the smallest p-value is 1 over one more."""
FEW = 0.5
"""Cells are drawn where they are at most so many of the examples: below that they are the cheaper way."""
BLOCK = 4_000_000
"""Numbers held at once: 32 MB."""
SAME = 1e-12
"""Differences that differ by less are the same: sums in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """A metric of one variant's predictions as a function of sums over examples."""

    contributions: Any
    """Contribution of each example to the sums, `[examples, sums]`: an array, or a sparse one of scipy where most are
    0."""
    figure: Callable[[Floats], Floats]
    """Returns figures `[resamples]` for sums `[sums, resamples]`; NaN where the metric is not defined."""
    count: int | None = None
    """Number of the examples that the metric is of, where it leaves others out; None for all."""
    codes: Integers | None = None
    """A number per example, `[examples]`: examples of one number add the same; None where each is its own."""
    weighted: Callable[[Floats], Floats] | None = None
    """Returns figures `[resamples]` for the number of times that each example is drawn, `[examples, resamples]`, where
    the sums hold for the examples as they are alone: ranks change with every resample. None for all other metrics."""

    @property
    def totals(self) -> Floats:
        """The sums over the examples as they are, `[sums, 1]`."""
        return np.asarray(self.contributions.sum(axis=0), dtype=np.float64).reshape(-1, 1)

    @property
    def value(self) -> float:
        """The metric of the examples as they are."""
        return float(self.figure(self.totals)[0])


def interval(value: float, figures: Floats, settings: Settings, *, examples: int, count: int | None = None) -> Estimate:
    """Return a figure with the percentile interval of its resamples, which holds the figure itself.

    Args:
        value: The figure.
        figures: Those of resamples, `[resamples]`.
        settings: Confidence level of the interval.
        examples: Number of examples that were resampled.
        count: Number of those that the figure is of; None for all.
    """
    low, high = percentiles(figures, settings.confidence)
    count = examples if count is None else count
    if not (math.isfinite(low) and math.isfinite(value)):
        return Estimate(value=value, low=math.nan, high=math.nan, count=count, clusters=examples)
    return Estimate(value=value, low=min(low, value), high=max(high, value), count=count, clusters=examples)


def draws(sums: Sums, settings: Settings) -> Floats:
    """Return the metric of resamples of the examples, `[resamples]`."""
    return np.concatenate([_figures(sums, part) for part in _resamples((sums,), settings)])


def difference_draws(candidate: Sums, reference: Sums, settings: Settings) -> Floats:
    """Return the difference of two variants' metrics in resamples of the examples, both on the same, `[resamples]`."""
    return np.concatenate(
        [_figures(candidate, part) - _figures(reference, part) for part in _resamples((candidate, reference), settings)]
    )


def permutation_p(candidate: Sums, reference: Sums, settings: Settings, *, permutations: int = PERMUTATIONS) -> float:
    """Return the two-sided p-value of a paired permutation test: each example's two predictions swapped by a coin.

    Of a mean it is the sign-flip test of the examples' differences (Fisher 1935); of any other metric approximate
    randomization (Noreen 1989). What is swapped are contributions to sums: of a correlation numbers, or ranks, that
    were standardized on their own side, and ranks are not taken anew.
    """
    seen = candidate.value - reference.value
    if not np.isfinite(seen):
        return float("nan")
    examples, counts = _cells((candidate, reference))
    change = reference.contributions[examples] - candidate.contributions[examples]
    differ = np.ravel(abs(change).sum(axis=1)) > 0
    change, counts = change[differ], counts[differ]
    one, other = candidate.totals, reference.totals
    rng = np.random.default_rng(settings.seed)
    hits = 0
    for size in _blocks(permutations, max(change.shape)):
        swapped = change.T @ _swaps(rng, counts, size)
        figures = candidate.figure(one + swapped) - reference.figure(other - swapped)
        # What is not defined in a permutation counts against the difference.
        hits += size - int(np.count_nonzero(np.abs(figures) < abs(seen) - SAME))
    return (hits + 1) / (permutations + 1)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some resamples."""

    examples: Integers
    """An example of each cell, `[cells]`."""
    weights: Floats
    """Number of times that each cell is drawn, `[cells, resamples]`."""


def _figures(sums: Sums, part: _Part) -> Floats:
    """Return the metric of some resamples."""
    if sums.weighted is not None:
        return sums.weighted(part.weights)
    return sums.figure(sums.contributions[part.examples].T @ part.weights)


def _resamples(sides: Sequence[Sums], settings: Settings) -> Iterator[_Part]:
    """Yield resamples of the examples, the same for all sides, in blocks."""
    examples, counts = _cells(sides)
    total = int(counts.sum())
    if len(examples) > FEW * total:
        for weights in resample_weights(total, settings):
            yield _Part(np.arange(total), weights)
        return
    rng = np.random.default_rng(settings.seed)
    width = max(len(examples), *(side.contributions.shape[1] for side in sides))
    for size in _blocks(settings.resamples, width):
        drawn = rng.multinomial(total, counts / total, size=size)
        yield _Part(examples, drawn.T.astype(np.float64))


def _cells(sides: Sequence[Sums]) -> tuple[Integers, Integers]:
    """Return an example of each cell of examples that add the same on all sides, and the number in it."""
    codes = [side.codes for side in sides if side.codes is not None and side.weighted is None]
    total = sides[0].contributions.shape[0]
    if len(codes) < len(sides):
        return np.arange(total), np.ones(total, dtype=np.int64)
    _, examples, counts = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_counts=True)
    return examples, counts


def _swaps(rng: np.random.Generator, counts: Integers, size: int) -> Floats:
    """Return how many examples of each cell are swapped, `[cells, size]`."""
    if len(counts) and counts.max() == 1:
        bits = np.unpackbits(rng.integers(0, 256, size=(len(counts), -(-size // 8)), dtype=np.uint8), axis=1)
        return bits[:, :size].astype(np.float64)
    return rng.binomial(counts[:, None], 0.5, size=(len(counts), size)).astype(np.float64)


def _blocks(total: int, width: int) -> Iterator[int]:
    """Yield how many of `total` columns are held at once, where each has `width` numbers."""
    block = max(1, BLOCK // max(1, width))
    for begin in range(0, total, block):
        yield min(block, total - begin)
