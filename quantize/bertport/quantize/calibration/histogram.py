"""A histogram that streams: fixed memory whatever the number of values, the same bins whatever their order.

Calibration tools keep every activation and sort them at the end, which took over 256 GB for a BERT (ort#10503). Here a
tensor takes `BINS` counters. Bins are as wide as a power of two, and begin at its multiples, so that two neighbours
make exactly one bin of the next width: when the range outgrows the bins, they are merged in pairs until it fits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import ValidationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "Histogram"]

BINS = 4096
"""Counters of a histogram; at least half of them lie within the range, eight for each of the 256 steps of 8 bits."""
FINEST = -100
"""Binary logarithm of the least width."""
DIGITS = 40
"""Binary digits of the largest value that are told apart; float32 has 24."""


class Histogram:
    """Counts values in equal bins that cover the range seen so far.

    Args:
        bins: Number of counters.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.counts: NDArray[np.int64] = np.zeros(bins, dtype=np.int64)
        self.low, self.high = math.inf, -math.inf
        self._exponent = FINEST  # bins are 2**exponent wide
        self._first = 0  # bin i begins at (first + i) * width

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def nbytes(self) -> int:
        """Bytes that the counters take; the rest is a few numbers."""
        return self.counts.nbytes

    def edges(self) -> NDArray[np.float64]:
        """Return where bins begin, and where the last one ends, as an array of shape (bins + 1,)."""
        return np.arange(self._first, self._first + len(self.counts) + 1, dtype=np.float64) * self.width

    def add(self, values: NDArray[np.floating]) -> None:
        """Count values.

        Args:
            values: An array of any shape, possibly empty.

        Raises:
            ValidationError: for values that are not finite.
        """
        # 64 bits: dividing by a power of two then is exact, also for the smallest float32.
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        if not len(flat):
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValidationError(
                "an activation is not a finite number, so the model cannot be calibrated: export the checkpoint again"
            )
        self._cover(min(low, self.low), max(high, self.high))
        numbers = np.floor(np.ldexp(flat, -self._exponent)).astype(np.int64) - self._first
        self.counts += np.bincount(numbers, minlength=len(self.counts))

    def _cover(self, low: float, high: float) -> None:
        """Widen and move the bins so that they cover a range."""
        exponent = _exponent(low, high, len(self.counts))
        first = math.floor(math.ldexp(low, -exponent))
        used = np.flatnonzero(self.counts)
        # More than 62 halvings leave 0 or -1 of any number, as 62 do.
        numbers = ((used + self._first) >> min(exponent - self._exponent, 62)) - first
        counts = np.zeros_like(self.counts)
        np.add.at(counts, numbers, self.counts[used])
        self.counts, self.low, self.high = counts, low, high
        self._exponent, self._first = exponent, first


def _exponent(low: float, high: float, bins: int) -> int:
    """Return the least width, as a power of two, with which the bins cover a range; it depends on nothing else."""
    exponent = FINEST
    if low != high:
        exponent = max(exponent, math.frexp((high - low) / bins)[1] - 1)
    if low or high:
        exponent = max(exponent, math.frexp(max(abs(low), abs(high)))[1] - DIGITS)
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= bins:
        exponent += 1
    return exponent
