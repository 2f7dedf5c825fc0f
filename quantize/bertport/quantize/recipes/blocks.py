"""Weights in 4 or 8 bits with a scale for each block of inputs: pure functions from an array to packed bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EIGHT_BITS", "Blocks", "quantize_blocks"]

FOUR_BITS, EIGHT_BITS = 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A matrix in blocks along its inputs, symmetric about the middle of the unsigned range."""

    packed: NDArray[np.uint8]
    """In 4 bits two values a byte, the first in the low half. Shape: (outputs, blocks, bytes of a block)"""
    scales: NDArray[np.float32]
    """Shape: (outputs, blocks)"""
    bits: int
    """4 or 8."""
    block: int
    """Inputs in a block."""
    inputs: int
    """Inputs in all; the last block may be filled up."""

    def dequantize(self) -> NDArray[np.float32]:
        """Return the matrix that the integers stand for, of shape (inputs, outputs)."""
        values = self.packed
        if self.bits == FOUR_BITS:
            values = np.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:2], self.block)
        centred = values.astype(np.float32) - 2 ** (self.bits - 1)
        rows = (centred * self.scales[:, :, None]).reshape(len(values), -1)
        matrix: NDArray[np.float32] = rows[:, : self.inputs].T
        return matrix


def quantize_blocks(weights: NDArray[np.float32], *, bits: int, block: int) -> Blocks:
    """Quantize a matrix with a scale for each block of inputs of each output.

    Symmetric without zero points: MatMulNBits with them is wrong for one row on AVX2 (ort#29853). In 4 bits the scale
    takes the sign that puts the block's largest weight on -8, the end that has one step more.

    Args:
        weights: Shape: (inputs, outputs)
        bits: 4 or 8.
        block: Inputs in a block: a power of two, at least 16.
    """
    inputs, outputs = weights.shape
    count = -(-inputs // block)
    padded = np.zeros((outputs, count * block), dtype=np.float32)
    padded[:, :inputs] = weights.T
    parts = padded.reshape(outputs, count, block)
    low = 2 ** (bits - 1)
    largest = np.take_along_axis(parts, np.abs(parts).argmax(axis=-1, keepdims=True), axis=-1)
    scales = largest / -low if bits == FOUR_BITS else np.abs(largest) / (low - 1)
    scales[scales == 0] = 1
    values = (np.clip(np.rint(parts / scales), -low, low - 1) + low).astype(np.uint8)
    packed = values[..., 0::2] | values[..., 1::2] << 4 if bits == FOUR_BITS else values
    return Blocks(packed=packed, scales=scales[..., 0], bits=bits, block=block, inputs=inputs)
