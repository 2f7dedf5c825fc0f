"""Calibration methods: the range of a histogram that 8 bits cover, by minmax, percentile, entropy or MSE."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.quantize.calibration.histogram import Histogram

__all__ = [
    "DEFAULT",
    "DEFAULT_METHOD",
    "METHODS",
    "SAMPLES",
    "SCHEMES",
    "Calibration",
    "QuantizationScheme",
    "Range",
    "digest",
    "method_named",
]

KEPT = 0.9999
"""Share of the values that `percentile` keeps; half of the others are cut off at either end."""
SMALLEST = 1 / 64
"""Least share of an end of the range that is tried: outlier channels of a BERT are 20 to 50 times the rest."""
TRIED = 96
"""Ranges that are tried along one end."""
LITTLE = 1e-4
"""Probability given to what the rounded distribution leaves empty: the divergence would be infinite."""
TINY = 1e-12
"""Least width of a range: an activation that is always 0 must not divide by 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationScheme:
    """A quantization scheme: how activations are rounded to 8 bits, one for each kind of hardware."""

    name: str
    """Short name, for manifests."""
    dtype: type[np.generic]
    """Type of the integers."""
    symmetric: bool
    """Whether 0 is the integer 0 and both ends are equally far, as TensorRT wants; otherwise the range is the data's
    own."""

    @property
    def steps(self) -> int:
        """Steps that the range is divided into."""
        return 254 if self.symmetric else 255

    def fit(self, low: float, high: float) -> Range:
        """Return the range that the scheme has room for around another one; it always holds 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        if self.symmetric:
            high = max(-low, high, TINY / 2)
            return Range(low=-high, high=high)
        return Range(low=low, high=max(high, low + TINY))

    def parameters(self, covered: Range) -> tuple[np.float32, np.generic]:
        """Return the scale and the zero point with which QuantizeLinear rounds a range."""
        scale = np.float32((covered.high - covered.low) / self.steps)
        zero = 0 if self.symmetric else round(-covered.low / float(scale))
        return scale, self.dtype(min(max(zero, 0), self.steps))


SCHEMES = {
    row.name: row
    for row in (
        QuantizationScheme(name="s8", dtype=np.int8, symmetric=True),
        QuantizationScheme(name="u8", dtype=np.uint8, symmetric=False),
    )
}
"""By name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Range of values that 8 bits cover; values outside are clipped to its ends."""

    low: float
    """Lower end, at most 0."""
    high: float
    """Upper end, at least 0."""


def _minmax(histogram: Histogram, scheme: QuantizationScheme) -> Range:
    return scheme.fit(histogram.low, histogram.high)


def _percentile(histogram: Histogram, scheme: QuantizationScheme) -> Range:
    cumulated = np.concatenate([[0], np.cumsum(histogram.counts)]) / histogram.total
    tail = (1 - KEPT) / 2
    low, high = np.interp([tail, 1 - tail], cumulated, histogram.edges())
    return scheme.fit(max(float(low), histogram.low), min(float(high), histogram.high))


def _entropy(histogram: Histogram, scheme: QuantizationScheme) -> Range:
    return _least(histogram, scheme, lambda low, high: _divergence(histogram, low, high, scheme.steps))


def _mse(histogram: Histogram, scheme: QuantizationScheme) -> Range:
    edges = histogram.edges()
    centres = (edges[:-1] + edges[1:]) / 2

    def error(low: float, high: float) -> float:
        outside = centres - np.clip(centres, low, high)
        step = (high - low) / scheme.steps
        within = float(histogram.counts[outside == 0].sum())
        # A value within is rounded by a twelfth of a squared step on average.
        return float((histogram.counts * np.square(outside)).sum()) + within * step**2 / 12

    return _least(histogram, scheme, error)


def _least(histogram: Histogram, scheme: QuantizationScheme, cost: Callable[[float, float], float]) -> Range:
    """Return the range of least cost: both ends together where they are bound to each other, otherwise by turns."""
    whole = scheme.fit(histogram.low, histogram.high)
    # With fewer bins than steps within the range, nothing could be said of what rounding costs.
    least = min(1.0, max(SMALLEST, scheme.steps * histogram.width / (whole.high - whole.low)))
    shares = np.geomspace(1.0, least, TRIED).tolist()
    if scheme.symmetric:
        best = min(shares, key=lambda share: cost(share * whole.low, share * whole.high))
        return Range(low=best * whole.low, high=best * whole.high)
    low, high = whole.low, whole.high
    for _ in range(2):
        high = min((share * whole.high for share in shares), key=lambda end: cost(low, end))
        low = min((share * whole.low for share in shares), key=lambda end: cost(end, high))
    return scheme.fit(low, high)


def _divergence(histogram: Histogram, low: float, high: float, steps: int) -> float:
    """Return the KL divergence of what 8 bits leave from what was there (Migacz 2017, "8-bit Inference with TensorRT").

    What is cut off counts at the ends of the range; it is not in the rounded distribution, and so costs.
    """
    edges = histogram.edges()
    centres = (edges[:-1] + edges[1:]) / 2
    inside = np.flatnonzero((centres >= low) & (centres <= high))
    if not len(inside):
        return np.inf
    before = histogram.counts[inside].astype(np.float64)
    levels = np.rint((centres[inside] - low) / (high - low) * steps).astype(np.int64)
    after = before.copy()
    before[0] += histogram.counts[: inside[0]].sum()
    before[-1] += histogram.counts[inside[-1] + 1 :].sum()
    filled = before > 0
    mass = np.bincount(levels, weights=after, minlength=steps + 1)
    shared = np.bincount(levels[filled], minlength=steps + 1)
    rounded = mass[levels[filled]] / shared[levels[filled]]
    exact = before[filled] / before.sum()
    rounded = np.where(rounded > 0, rounded / max(after.sum(), 1.0), LITTLE)
    return float((exact * np.log(exact / rounded)).sum())


METHODS: dict[str, Callable[[Histogram, QuantizationScheme], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
"""By the name that users write."""


SAMPLES = 256
"""Texts and pairs to calibrate on where no number is asked for."""
DEFAULT_METHOD = "mse"
"""The method where none is asked for; docs/research/quantization.md has the figures of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Options of calibration."""

    method: str = DEFAULT_METHOD
    """Method that turns a histogram into a range: a key of `METHODS`."""
    samples: int = SAMPLES
    """Texts and pairs to run."""
    suppress_outliers: bool = True
    """Whether channels are shifted and divided where that gains."""
    keep_in_float: bool = True
    """Whether outlier channels that this leaves are kept in float where that gains."""
    rotate: bool = True
    """Whether activations are rotated by blocks where that gains."""
    gptq: bool = True
    """Whether weights are rounded by GPTQ."""


DEFAULT = Calibration()
"""The settings where none are asked for."""


def method_named(name: str) -> Callable[[Histogram, QuantizationScheme], Range]:
    """Return a method of calibration.

    Raises:
        UnknownNameError: for an unknown name.
    """
    if name not in METHODS:
        raise UnknownNameError("calibration method", name, METHODS)
    return METHODS[name]


def digest(ranges: Mapping[str, Range]) -> str:
    """Return the SHA-256 of ranges by the name of the activation, in hexadecimal."""
    lines = [f"{name} {covered.low.hex()} {covered.high.hex()}\n" for name, covered in sorted(ranges.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
