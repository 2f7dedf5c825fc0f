"""Outlier channels: dividing them down before activations are rounded, and multiplying their weights instead.

One token's activations share a scale, which its largest channel sets. After a LayerNorm of a trained BERT one or two
channels are ten times larger than the rest, so that the rest gets a tenth of the steps. Dividing those channels and
multiplying the rows of the weights that meet them leaves the product as it is (SmoothQuant, Xiao et al. 2022, arXiv
2211.10438). There the divisors are folded into the LayerNorm; BERT adds a LayerNorm's output to the next one's input
as well, so here they stay a product of their own, of a vector, which costs about as much as the other steps of
rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bertport.quantize.activations import Activations
    from bertport.quantize.weights import Quantized

    Array = NDArray[np.float32]

__all__ = ["divisors"]

WORTH = 0.65
"""The share of the squared error that must be left at most: the product costs time, and where less is gained the
answers were seen to get no better."""
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Quantiles of the channels' largest magnitudes, above which channels are divided."""
STRENGTHS = (0.5, 1.0)
"""Powers of how far above: 1 brings a channel down to the threshold."""
AFTER_COMPENSATION = 0.4
"""What compensated rounding leaves of the squared error of the weights, about."""


def divisors(
    activations: Activations,
    weights: Array,
    *,
    round_weights: Callable[[Array], Quantized],
    round_activations: Callable[[Array], Array],
) -> Array | None:
    """Find the divisors that leave the least error in a layer's product, on some of its inputs.

    Args:
        activations: What goes into the layer.
        weights: Shape: (inputs, outputs)
        round_weights: As the recipe does.
        round_activations: As the recipe does, and back; row by row.

    Returns:
        One divisor for each channel, at least 1, of shape (inputs,); None where they are not worth it.
    """
    rows = activations.rows

    def error(by: Array) -> float:
        """Give the squared error of the product."""
        scaled = weights * by[:, None]
        of_rows = (round_activations(rows / by) * by - rows) @ weights
        of_weights = (rows / by) @ (round_weights(scaled).dequantize() - scaled)
        return float(np.square(of_rows).sum() + AFTER_COMPENSATION * np.square(of_weights).sum())

    before = error(np.ones_like(activations.largest))
    found, best = min(((error(each), index, each) for index, each in enumerate(_candidates(activations))))[::2]
    return best if found <= WORTH * before else None


def _candidates(activations: Activations) -> Iterator[Array]:
    largest = np.maximum(activations.largest, np.finfo(np.float32).tiny)
    for threshold in THRESHOLDS:
        for strength in STRENGTHS:
            yield np.maximum(1, largest / np.quantile(largest, threshold)).astype(np.float32) ** np.float32(strength)
