"""GPTQ: each weight's rounding error is made good by those that are rounded after it.

Frantar et al. 2022, arXiv 2210.17323. With X the activations that go into a layer, the product
X W is what must stay, so the error that rounding leaves in one row of W is spread over the rows not yet rounded, in
proportions that follow from X'X. Weights keep their places and their scales; only which of the two neighbouring
integers is taken changes, and sometimes the one beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.quantize.weights.rounding import LARGEST, PAIR_LIMIT, Quantized

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["round_with_gptq"]

DAMPING = 0.01
"""Share of the mean diagonal of X'X that is added to it, so that it can be inverted; GPTQ's own."""
BLOCK, INNER = 128, 8
"""Rows after which the rest of the matrix, or of the block, is brought up to date, in one product: row by row, it would
be read and written as often as it has rows. Even, so that no pair is split."""
LEAF = 128
"""Rows of a triangular matrix that are inverted at once."""


def round_with_gptq(
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
    left = weights.astype(np.float32) / rounded.scales  # in steps, so that rounding is to integers
    values = np.empty_like(rounded.values)
    for begin in range(0, len(left), BLOCK):
        end = min(begin + BLOCK, len(left))
        errors = np.empty((end - begin, left.shape[1]), dtype=np.float32)
        for first in range(begin, end, INNER):
            last = min(first + INNER, end)
            for row in range(first, last):
                values[row] = _nearest(left[row], values[row - 1] if saturating and row % 2 else None)
                error = (left[row] - values[row]) / spread[row, row]
                left[row + 1 : last] -= spread[row, row + 1 : last, None] * error
                errors[row - begin] = error
            left[last:end] -= spread[first:last, last:end].T @ errors[first - begin : last - begin]
        left[end:] -= spread[begin:end, end:].T @ errors
    return Quantized(values=values, scales=rounded.scales)


def _nearest(row: NDArray[np.float32], partner: NDArray[np.int8] | None) -> NDArray[np.int8]:
    """Round a row to what its partner leaves room for; the other sign always has room."""
    lowest: NDArray[np.float32] | int = -LARGEST
    highest: NDArray[np.float32] | int = LARGEST
    if partner is not None:
        beside = partner.astype(np.float32)
        lowest = np.maximum(-LARGEST, -PAIR_LIMIT - np.minimum(beside, 0))
        highest = np.minimum(LARGEST, PAIR_LIMIT - np.maximum(beside, 0))
    return np.clip(np.rint(row), lowest, highest).astype(np.int8)


def _spread(gram: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """Return the upper Cholesky factor of the inverse of X'X, or None where that cannot be had.

    With X'X = U U', U upper, it is the inverse of U: a fifth of the work of inverting X'X and factoring what comes out.
    """
    mean = np.diag(gram).mean()
    if not (np.isfinite(mean) and mean > 0):
        return None
    damped = gram.copy()
    np.fill_diagonal(damped, np.diag(gram) + DAMPING * mean)
    try:
        upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        return _inverted(upper).astype(np.float32)
    except np.linalg.LinAlgError:
        return None


def _inverted(upper: NDArray[Any]) -> NDArray[Any]:
    """Invert an upper triangular matrix by quarters."""
    size = len(upper)
    if size <= LEAF:
        return np.linalg.inv(upper)
    half = size // 2
    inverse = np.zeros((size, size))
    first = inverse[:half, :half] = _inverted(upper[:half, :half])
    second = inverse[half:, half:] = _inverted(upper[half:, half:])
    inverse[:half, half:] = -(first @ upper[:half, half:]) @ second
    return inverse
