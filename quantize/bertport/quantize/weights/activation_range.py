"""The range of one token's activations in unsigned 8 bits, made at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.quantize.graph.rewrite import Linear

__all__ = ["AFTER_GELU", "AFTER_GELU_LOW", "MIDDLE", "SYMMETRIC", "ActivationRange", "ranges_for", "round_activations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """Mapping of one token's activations to unsigned 8 bits: value / maximum * steps + zero."""

    steps: int
    """Steps between 0 and the token's maximum."""
    zero: int
    """The integer that stands for 0."""
    floor: float
    """The least maximum: no smaller one gives room for what lies below 0, nor a division by 0."""
    absolute: bool
    """Whether the maximum is that of the absolute values."""


MIDDLE = 128
"""The integer that stands for 0 where both sides have the same room."""
SYMMETRIC = ActivationRange(steps=127, zero=MIDDLE, floor=1e-12, absolute=True)
# GELU's minimum is -0.16998 (-0.17005 for the tanh form): with 16 steps below zero, it fits from 239 x 0.1701 / 16 up.
AFTER_GELU = ActivationRange(steps=239, zero=16, floor=239 * 0.1701 / 16, absolute=False)
# Where the largest channels are kept in float, maxima below that floor are common: more steps below zero lower it.
AFTER_GELU_LOW = ActivationRange(steps=231, zero=24, floor=231 * 0.1701 / 24, absolute=False)


def ranges_for(linear: Linear) -> tuple[ActivationRange, ...]:
    """Return the ranges that suit what goes into a layer; the first where nothing is known of it."""
    return (AFTER_GELU, AFTER_GELU_LOW) if linear.gelu else (SYMMETRIC,)


def round_activations(rows: NDArray[np.float32], span: ActivationRange) -> NDArray[np.float32]:
    """Round activations as the graph does, each row with a scale of its own; return what the integers stand for."""
    magnitudes = np.abs(rows) if span.absolute else rows
    step = np.maximum(magnitudes.max(axis=-1, keepdims=True), np.float32(span.floor)) / np.float32(span.steps)
    rounded: NDArray[np.float32] = rows / step
    np.rint(rounded, out=rounded)
    np.clip(rounded, -span.zero, 255 - span.zero, out=rounded)
    rounded *= step
    return rounded
