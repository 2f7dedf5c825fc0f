"""Weight matrices in 8 bits: pure functions from an array to integers and the scales that undo them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

__all__ = ["LARGEST", "PAIR_LIMIT", "Quantized", "full_range", "pair_safe", "saturates"]

LARGEST = 127
"""Largest magnitude used; -128 is left out so that a weight and its negative are rounded alike."""
PAIR_LIMIT = (2**15 - 1) // 255
"""The most that two adjacent weights of one sign may add up to: 255 x 128 = 32,640 still fits 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A matrix as integers times a scale per column, symmetric."""

    values: NDArray[np.int8]
    """Shape: (inputs, outputs)"""
    scales: NDArray[np.float32]
    """Shape: (outputs,)"""

    def dequantize(self) -> NDArray[np.float32]:
        """Return the matrix that the integers stand for."""
        return self.values.astype(np.float32) * self.scales


def full_range(weights: NDArray[np.float32]) -> Quantized:
    """Quantize each column to the full range, -127 to 127.

    Right wherever four 8-bit products are summed in 32 bits: VNNI, AMX, Arm's dot products.

    Args:
        weights: Shape: (inputs, outputs)
    """
    return _round(weights, _largest(weights) / np.float32(LARGEST))


def pair_safe(weights: NDArray[np.float32]) -> Quantized:
    """Quantize each column so that no adjacent pair can overflow on AVX2.

    Without VNNI, x86 multiplies unsigned activations by signed weights with `vpmaddubsw`, which adds the products of
    rows 2k and 2k+1 in 16 bits, saturating. With activations of up to 255 the sum fits as long as two weights of one
    sign add up to at most `PAIR_LIMIT`; of two with opposite signs the larger product alone bounds it. So the scale of
    a column follows from its worst such pair, which costs 1.2 to 1.3 times the rounding error of the full range
    where seven bits for everything cost twice.

    Args:
        weights: Shape: (inputs, outputs)
    """
    first, second = _pairs(weights)
    same_sign = np.abs(first + second) * (np.sign(first) == np.sign(second))
    # Rounding can add a half to each of the two, so the sums aim at one less than the limit.
    scales = np.maximum(
        _largest(weights) / LARGEST, same_sign.max(axis=0, initial=np.float32(0)) / np.float32(PAIR_LIMIT - 1)
    )
    return _round(weights, scales)


def saturates(values: NDArray[np.int8]) -> bool:
    """Return whether some unsigned 8-bit activations would overflow a 16-bit pair sum with these weights."""
    first, second = (part.astype(np.int32) for part in _pairs(values))
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    negative = np.minimum(first, 0) + np.minimum(second, 0)
    return bool((positive.max(initial=0) * 255 > 2**15 - 1) or (negative.min(initial=0) * 255 < -(2**15)))


def _pairs(matrix: NDArray[T]) -> tuple[NDArray[T], NDArray[T]]:
    even = len(matrix) // 2 * 2
    return matrix[0:even:2], matrix[1:even:2]


def _largest(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    # A column of zeros gets a scale too: 0 would give 0/0.
    tiny = np.float32(np.finfo(np.float32).tiny * 2 * LARGEST)
    largest: NDArray[np.float32] = np.maximum(np.abs(weights).max(axis=0, initial=np.float32(0)), tiny)
    return largest


def _round(weights: NDArray[np.float32], scales: NDArray[np.float32]) -> Quantized:
    values = np.clip(np.rint(weights / scales), -LARGEST, LARGEST).astype(np.int8)
    return Quantized(values=values, scales=scales.astype(np.float32))
