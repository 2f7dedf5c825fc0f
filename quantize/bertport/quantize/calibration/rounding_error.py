"""The error that a static range leaves: what remedies for outliers are compared by before anything is calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["least_rounding_error"]

STEPS = 254
"""Steps of the symmetric range that a choice is judged by."""
CUTS = np.geomspace(1.0, 1 / 8, 8)
"""Shares of the range that are tried: what lies beyond is cut off."""


def least_rounding_error(rows: NDArray[np.floating], costs: NDArray[np.floating], furthest: float) -> float:
    """Estimate the squared error that rounding leaves in a product for each token, with the best range.

    Rounding errors of two channels do not hang together, so each counts with the size of its row of the weights.

    Args:
        rows: Some tokens of the activation. Shape: (tokens, channels)
        costs: Squared size of each channel's row of the weights. Shape: (channels,)
        furthest: The largest magnitude that the activation reaches.
    """

    def with_range(cut: float) -> float:
        step = max(2 * cut * furthest / STEPS, float(np.finfo(np.float32).tiny))
        errors = np.clip(np.rint(rows / step), -STEPS / 2, STEPS / 2) * step - rows
        return float((np.square(errors).mean(axis=0) * costs).sum())

    return min(map(with_range, CUTS))
