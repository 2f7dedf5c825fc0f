"""Rounding with compensation: each weight's rounding error is made good by those that are rounded after it.

The method is GPTQ (Frantar et al. 2022, arXiv 2210.17323). With X the activations that go into a layer, the product
X W is what must stay, so the error that rounding leaves in one row of W is spread over the rows not yet rounded, in
proportions that follow from X'X. Weights keep their places and their scales; only which of the two neighbouring
integers is taken changes, and sometimes the one beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.weights import LARGEST, PAIR_LIMIT, Quantized

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["compensated"]

DAMPING = 0.01
"""Share of the mean diagonal of X'X that is added to it, so that it can be inverted; GPTQ's own."""
BLOCK = 64
"""Rows after which the rest of the matrix is brought up to date; even, so that no pair is split."""


def compensated(
    weights: NDArray[np.float32], gram: NDArray[np.float64], rounded: Quantized, *, saturating: bool
) -> Quantized:
    """Round a matrix anew so that its products with the activations change less.

    Args:
        weights: Shape: (inputs, outputs)
        gram: X'X of activations X of shape (tokens, inputs). Shape: (inputs, inputs)
        rounded: The matrix rounded to the nearest; its scales are kept.
        saturating: Whether adjacent weights of one sign must add up to at most `PAIR_LIMIT`.

    Returns:
        The matrix with the same scales, or `rounded` itself where the activations tell nothing.
    """
    spread = _spread(gram)
    if spread is None:
        return rounded
    left = weights.astype(np.float64) / rounded.scales  # in steps, so that rounding is to integers
    values = np.empty_like(rounded.values)
    for begin in range(0, len(left), BLOCK):
        end = min(begin + BLOCK, len(left))
        errors = np.empty((end - begin, left.shape[1]))
        for row in range(begin, end):
            # What the partner, row - 1, leaves room for; the other sign always has room.
            partner = values[row - 1].astype(np.float64) if saturating and row % 2 else np.zeros(left.shape[1])
            lowest = np.maximum(-LARGEST, -PAIR_LIMIT - np.minimum(partner, 0))
            highest = np.minimum(LARGEST, PAIR_LIMIT - np.maximum(partner, 0))
            values[row] = np.clip(np.rint(left[row]), lowest, highest).astype(np.int8)
            error = (left[row] - values[row]) / spread[row, row]
            left[row + 1 : end] -= np.outer(spread[row, row + 1 : end], error)
            errors[row - begin] = error
        left[end:] -= spread[begin:end, end:].T @ errors
    return Quantized(values=values, scales=rounded.scales)


def _spread(gram: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Give the upper Cholesky factor of the inverse of X'X, or None where that cannot be had."""
    mean = np.diag(gram).mean()
    if not (np.isfinite(mean) and mean > 0):
        return None
    damped = gram + DAMPING * mean * np.eye(len(gram))
    try:
        return np.linalg.cholesky(np.linalg.inv(damped)).T
    except np.linalg.LinAlgError:
        return None
