"""Intervals of differences between shares on the same examples."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["paired_share_interval"]

HALVINGS = 60
"""Steps of a bisection, which give every digit of a number from -1 to 1."""


def paired_share_interval(gained: int, lost: int, total: int, confidence: float) -> tuple[float, float]:
    """Return the score interval of the difference of two shares of the same examples (Tango 1998).

    A bootstrap has nothing to resample where few examples differ, or none, and says that it is sure; this interval is
    as wide as so many examples without a difference allow.

    Args:
        gained: examples that the candidate alone has right.
        lost: examples that the reference alone has right.
        total: all examples, one at least.
        confidence: share of intervals that are to hold the true difference.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def limit(outside: float) -> float:
        """Return the difference at which the score statistic reaches z, on the way from the one seen to a bound."""
        inside = (gained - lost) / total
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            if abs(_score(gained, lost, total, middle)) <= z:
                inside = middle
            else:
                outside = middle
        return (inside + outside) / 2

    return limit(-1.0), limit(1.0)


def _score(gained: int, lost: int, total: int, difference: float) -> float:
    """Return the score statistic of a true difference, with the likeliest share of lost examples under it."""
    b = (2 * total - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 8 * total * c, 0.0)) - b) / (4 * total)
    variance = total * (2 * share + difference * (1 - difference))
    distance = gained - lost - total * difference
    if variance <= 0:
        return math.inf if distance else 0.0
    return distance / math.sqrt(variance)
