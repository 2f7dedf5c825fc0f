"""Outlier channels: kept from setting the scale that a token's other channels are rounded with.

One token's activations share a scale, which its largest channel sets. After a LayerNorm of a trained BERT one or two
channels are ten times larger than the rest, so that the rest gets a tenth of the steps; after GELU a few of them reach
as far beyond the others. There are two remedies, each of which leaves the product as it is:

- Dividing those channels and multiplying the rows of the weights that meet them (SmoothQuant, Xiao et al. 2022, arXiv
  2211.10438). There the divisors are folded into the LayerNorm; BERT adds a LayerNorm's output to the next one's input
  as well, so here they stay a product of their own, of a vector, which costs about as much as the other steps of
  rounding. The weights pay for it, since their rows grow.
- Keeping the largest channels in float, and multiplying these few with their rows of the weights in float32
  (LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339, which looks for them in each batch; here they are chosen
  beforehand).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.calibration.statistics import magnitudes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from bertport.quantize.calibration.statistics import Activations
    from bertport.quantize.weights.rounding import Quantized

    Array = NDArray[np.float32]
    Rounding = Callable[[Array], Array]

__all__ = ["DecompositionPlan", "plan_decomposition"]

WORTH = 0.65
"""The share of the squared error that a remedy must leave at most: it costs time, and where less is gained the answers
were seen to get no better."""
WORTH_MORE = 0.85
"""The share that twice as many channels must leave at most of what half of them left."""
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Quantiles of the channels' largest magnitudes, above which channels are divided."""
FEWER_THRESHOLDS = (0.8, 0.95)
"""Quantiles that are tried where the channels with the largest magnitudes are already kept in float."""
STRENGTHS = (0.5, 1.0)
"""Powers of how far above: 1 brings a channel down to the threshold."""
FURTHEST = 1e4
"""Largest divisor of a channel."""
KEPT_IN_FLOAT = (8, 16, 32)
"""Numbers of channels that are tried for keeping in float."""
SPARSE = 16
"""Channels of which at most one is kept in float: a product of more in float32 would cost what 8 bits save."""
COLUMNS = 512
"""Columns of the weights, drawn from all alike, that are rounded to compare remedies: each has a scale of its own."""
SKETCH = 128
"""Random sums of rows or columns from which the size of an error is told. Of the default model's 26 choices at most two
are then others than with all rows and columns, in less than half the time that 512 columns take without sums; 256
columns without them choose otherwise in four."""
AFTER_GPTQ = 0.4
"""Share of the squared rounding error of the weights that remains after GPTQ, approximately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecompositionPlan:
    """An outlier decomposition plan: what is done to a layer's activations before they are rounded."""

    factors: Array
    """Factor of each channel, at most 1; 0 for those that are kept in float. Shape: (inputs,)"""
    rounding: int = 0
    """Index of the way of rounding that fits the remaining activations best."""

    @classmethod
    def keeping(cls, channels: NDArray[np.int64], inputs: int) -> DecompositionPlan:
        """Return the plan that keeps some of a layer's inputs in float and leaves the others as they are."""
        factors = np.ones(inputs, dtype=np.float32)
        factors[channels] = 0
        return cls(factors=factors)

    @property
    def kept_in_float(self) -> NDArray[np.int64]:
        """The channels that are kept in float, in their order."""
        return np.flatnonzero(self.factors == 0)

    @property
    def inverse(self) -> Array:
        """Factor of each row of the weights; 0 for the rows of channels that are kept in float; of shape (inputs,)."""
        there = self.factors != 0
        found: Array = np.divide(1, self.factors, out=np.zeros_like(self.factors), where=there)
        return found

    @property
    def multiplies(self) -> bool:
        """Whether there is anything to multiply by."""
        return bool((self.factors != 1).any())


def plan_decomposition(
    activations: Activations,
    weights: Array,
    *,
    round_weights: Callable[[Array], Quantized],
    roundings: Iterable[Rounding],
    may_keep_in_float: bool = True,
) -> DecompositionPlan:
    """Find what leaves the least error in a layer's product, on some of its inputs.

    Args:
        activations: What goes into the layer.
        weights: Shape: (inputs, outputs)
        round_weights: As the recipe does.
        roundings: Ways to round activations and back, row by row, of which the recipe takes the one that fits.
        may_keep_in_float: Whether channels may be kept in float.

    Returns:
        The plan; its factors are all 1 where no remedy is worth its cost.
    """
    ways, rng, columns = tuple(roundings), np.random.default_rng(0), weights.shape[1]
    # Of the error of the rows, E W, and of the weights, X D, only the size is wanted: about that of E (W R) and of
    # (R X) D, with R random, which have fewer columns or rows.
    sketched_weights = weights @ _signs(rng, columns, SKETCH)
    sketched_rows = _signs(rng, SKETCH, len(activations.rows)) @ activations.rows
    if columns > COLUMNS:
        weights = np.ascontiguousarray(weights[:, np.sort(rng.permutation(columns)[:COLUMNS])])
    of_all_columns = AFTER_GPTQ * columns / weights.shape[1]
    # Where most channels are dead, so is the one at a threshold: no factor may come out as 0.
    least = max(activations.largest.max() / FURTHEST, np.finfo(np.float32).tiny)
    rows, largest = activations.rows, np.maximum(activations.largest, np.float32(least))

    def best_of(candidates: Iterable[Array]) -> tuple[float, DecompositionPlan]:
        """Return the least squared error of the product, and the plan that leaves it."""
        tried: list[tuple[float, DecompositionPlan]] = []
        for factors in candidates:
            plain = DecompositionPlan(factors=factors)
            scaled, inverse = rows * factors, plain.inverse[:, None]
            matrix, sketched = weights * inverse, sketched_weights * inverse
            of_weights = np.square((sketched_rows * factors) @ (round_weights(matrix).dequantize() - matrix)).sum()
            for way, rounding in enumerate(ways):
                of_rows = np.square((rounding(scaled) - scaled) @ sketched).sum()
                error = float(of_rows + of_all_columns * of_weights)
                plan = DecompositionPlan(factors=factors, rounding=way)
                tried.append((error if np.isfinite(error) else np.inf, plan))
        return min(tried, key=lambda attempt: attempt[0])  # of equal ones the first

    everything = np.ones_like(largest)
    best, chosen = best_of([everything])
    divided, plan = best_of(_dividing(largest, everything, THRESHOLDS))
    if divided <= WORTH * best:
        best, chosen = divided, plan
    reach, share = np.argsort(-magnitudes(rows)), WORTH
    for count in KEPT_IN_FLOAT if may_keep_in_float else ():
        if count * SPARSE > len(largest):
            break
        kept = everything.copy()
        kept[reach[:count]] = 0
        left, plan = best_of([kept, *_dividing(largest, kept, FEWER_THRESHOLDS)])
        if left <= share * best:
            best, chosen, share = left, plan, WORTH_MORE
    return chosen


def _dividing(largest: Array, kept: Array, thresholds: Iterable[float]) -> Iterator[Array]:
    """Return factors that bring down the largest of the channels that are kept."""
    for threshold in thresholds:
        above = np.maximum(1, largest / np.quantile(largest[kept != 0], threshold)).astype(np.float32)
        for strength in STRENGTHS:
            yield kept / above ** np.float32(strength)


def _signs(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Return a matrix of random signs whose products keep the lengths of vectors, about."""
    signs = rng.integers(0, 2, (rows, columns)).astype(np.float32) * 2 - 1
    signs /= np.float32(np.sqrt(SKETCH))
    return signs
