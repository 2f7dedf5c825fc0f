"""Exact intervals of shares and quantiles of Student's t, from the incomplete beta function alone, without SciPy."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["clopper_pearson", "incomplete_beta", "t_quantile"]

TINY = 1e-300
"""Stand-in for 0 in the continued fraction."""
TERMS = 10_000
"""Most terms of the continued fraction; it needs about the square root of the larger parameter."""
ACCURATE = 1e-12
"""Relative; far below what an interval is printed with."""
HALVINGS = 45
"""Steps of a bisection, which give 14 digits."""


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where it converges fast
        return 1 - incomplete_beta(b, a, 1 - x)
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for factor in (even, odd):
            d = 1 / _nonzero(1 + factor * d)
            c = _nonzero(1 + factor / c)
            value *= c * d
        if abs(c * d - 1) < ACCURATE:
            break
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) * value / a


@lru_cache(maxsize=4096)
def clopper_pearson(hits: float, trials: float, confidence: float) -> tuple[float, float]:
    """Return the exact two-sided interval of a share (Clopper and Pearson 1934).

    Args:
        hits: How many of the trials were hits; need not be whole.
        trials: Independent trials, above 0; need not be whole.
        confidence: Share of intervals that are to hold the true share, at least.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if hits <= 0 else _solved(lambda x: incomplete_beta(hits, trials - hits + 1, x), tail, 1.0)
    high = 1.0 if hits >= trials else _solved(lambda x: incomplete_beta(hits + 1, trials - hits, x), 1 - tail, 1.0)
    return low, high


@lru_cache(maxsize=4096)
def t_quantile(level: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution at a level above 1/2."""
    high = 1.0
    while _t_below(high, degrees) < level:
        high *= 2
    return _solved(lambda t: _t_below(t, degrees), level, high)


def _t_below(t: float, degrees: float) -> float:
    return 1 - incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2


def _solved(function: Callable[[float], float], level: float, high: float) -> float:
    """Return where a function that grows from 0 on reaches a level."""
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < level else (low, middle)
    return (low + high) / 2


def _nonzero(value: float) -> float:
    return value if abs(value) > TINY else TINY
