"""Weights in 8 bits, made once for the many graphs of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.quantize.weights.rounding import full_range, pair_safe

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from bertport.quantize.graph.rewrite import Linear, Table
    from bertport.quantize.weights.outliers import DecompositionPlan
    from bertport.quantize.weights.rounding import Quantized

__all__ = ["WeightCache"]


class WeightCache:
    """Weights in 8 bits, rounded to the nearest.

    Args:
        saturating: Whether the instruction set adds pairs of products in 16 bits.
    """

    calibrated_on: dict[str, Any] | None = None
    """The text that the weights are calibrated on; None where they are rounded to the nearest."""

    def __init__(self, *, saturating: bool) -> None:
        self._method: Callable[[NDArray[np.float32]], Quantized] = pair_safe if saturating else full_range
        self._made: dict[str, Quantized] = {}

    def linear(self, linear: Linear, *, decomposed: bool = True) -> Quantized:  # noqa: ARG002 — for calibrated weights
        """Return a linear layer's weights, for activations as their plan leaves them, or a tied decoder's table."""
        if linear.table:
            return self.table(linear.table)
        return self._get(linear.name, linear.weights, self._method)

    def plan(self, linear: Linear) -> DecompositionPlan | None:  # noqa: ARG002 — for calibrated weights
        """Return how the layer's activations are decomposed before they are rounded, or None."""
        return None

    def table(self, table: Table) -> Quantized:
        """Return a table's transpose, a scale for each entry; only a tied one meets the multiplier."""
        return self._get(table.name, table.rows.T, self._method if table.tied else full_range)

    def _get(
        self, name: str, weights: NDArray[np.float32], method: Callable[[NDArray[np.float32]], Quantized]
    ) -> Quantized:
        if name not in self._made:
            self._made[name] = method(weights)
        return self._made[name]
