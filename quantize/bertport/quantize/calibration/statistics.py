"""Statistics of each linear layer's inputs on real text: as much as fitting the weights needs, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.calibration.observe import observe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from bertport.measure.quality.samples import Sample
    from bertport.quantize.deadline import Progress

__all__ = ["Activations", "collect", "magnitudes", "together"]

ROWS = 512
"""Rows kept of each input, drawn from all texts alike."""
TOGETHER = 768
"""Tokens that are squared at once: adding to a matrix of megabytes for each text took longer than squaring."""
REACH = 0.998
"""Quantile of a channel's magnitudes by which the largest are told: the very largest of many tokens would be chance."""
BLOCK = 384
"""Channels of a block of X'X: of the blocks, those below the diagonal are not computed, but mirrored in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """The inputs of a layer, X of shape (tokens, inputs), of which only a part is kept."""

    gram: NDArray[np.float32]
    """X'X. Shape: (inputs, inputs)"""
    mean: NDArray[np.float64]
    """The mean of each channel, so exact that a shift can be taken out of `gram`. Shape: (inputs,)"""
    lowest: NDArray[np.float32]
    """The least value of each channel. Shape: (inputs,)"""
    highest: NDArray[np.float32]
    """The greatest value of each channel. Shape: (inputs,)"""
    rows: NDArray[np.float32]
    """Some rows of X. Shape: (at most about `ROWS`, inputs)"""
    count: int
    """The number of tokens."""

    @property
    def largest(self) -> NDArray[np.float32]:
        """The largest magnitude of each channel, of shape (inputs,)."""
        return np.maximum(np.abs(self.lowest), np.abs(self.highest))


def magnitudes(rows: NDArray[np.float32]) -> NDArray[np.floating]:
    """Return how large each channel of some rows gets, of shape (channels,), but for the rarest values."""
    return np.quantile(np.abs(rows), REACH, axis=0)


def together(parts: Sequence[Activations]) -> Activations:
    """Return the statistics of all activations that are multiplied by one matrix; each product has the same weight."""
    if len(parts) == 1:
        return parts[0]
    most = max(part.count for part in parts)
    gram, mean = np.zeros_like(parts[0].gram), np.zeros_like(parts[0].mean)
    for part in parts:
        gram += part.gram * np.float32(most / part.count)
        mean += part.mean / len(parts)
    return Activations(
        gram=gram,
        mean=mean,
        lowest=np.minimum.reduce([part.lowest for part in parts]),
        highest=np.maximum.reduce([part.highest for part in parts]),
        rows=np.concatenate([part.rows[number :: len(parts)] for number, part in enumerate(parts)]),
        count=most * len(parts),
    )


def collect(
    model: onnx.ModelProto,
    names: Iterable[str],
    samples: Sequence[Sample],
    *,
    progress: Progress,
) -> Mapping[str, Activations]:
    """Run samples and gather what passes some points of the graph.

    Args:
        model: A graph with its weights in memory; it is not changed.
        names: Names of activations whose last axis is the layer's input.
        samples: What to run.
        progress: Told of what is done and of how much.
    """
    share = max(1, -(-ROWS // max(1, len(samples))))
    gathered = {
        name: _Gathering(share, np.random.default_rng([0, number])) for number, name in enumerate(sorted(set(names)))
    }
    observe(
        model,
        gathered,
        samples,
        progress=lambda done: progress("running the calibration text", done, len(samples)),
    )
    return {name: gathering.result() for name, gathering in gathered.items() if gathering.count}


class _Gathering:
    """Accumulator of one input's statistics, with `share` rows of each text kept."""

    def __init__(self, share: int, rng: np.random.Generator) -> None:
        self.share, self.rng = share, rng
        self.count = 0
        self.waiting: list[NDArray[np.floating]] = []
        self.gram: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)
        self.sum: NDArray[np.float64] = np.zeros((), dtype=np.float64)
        self.lowest: NDArray[np.floating] = np.full((), np.inf, dtype=np.float32)
        self.highest: NDArray[np.floating] = np.full((), -np.inf, dtype=np.float32)
        self.rows: list[NDArray[np.floating]] = []

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in one text's values, of shape (..., channels)."""
        values = values.reshape(-1, values.shape[-1])
        if not len(values):
            return
        self.count += len(values)
        self.rows.append(values[self.rng.permutation(len(values))[: self.share]])
        self.waiting.append(values)
        if sum(map(len, self.waiting)) >= TOGETHER:
            self._square()

    def _square(self) -> None:
        values = np.concatenate(self.waiting).astype(np.float32, copy=False)
        self.waiting.clear()
        channels = values.shape[-1]
        if not len(self.gram):
            self.gram = np.zeros((channels, channels), dtype=np.float32)
        for begin in range(0, channels, BLOCK):
            end = begin + BLOCK
            block, rest = values[:, begin:end], values[:, end:]
            # Of a block times its own transpose numpy computes one half, and mirrors it.
            self.gram[begin:end, begin:end] += block.T @ block
            self.gram[begin:end, end:] += block.T @ rest
        self.sum = self.sum + values.sum(axis=0, dtype=np.float64)
        self.lowest = np.minimum(self.lowest, values.min(axis=0))
        self.highest = np.maximum(self.highest, values.max(axis=0))

    def result(self) -> Activations:
        """Return what was gathered; there was some."""
        if self.waiting:
            self._square()
        for begin in range(BLOCK, len(self.gram), BLOCK):
            self.gram[begin:, begin - BLOCK : begin] = self.gram[begin - BLOCK : begin, begin:].T
        return Activations(
            gram=self.gram,
            mean=self.sum / self.count,
            lowest=self.lowest.astype(np.float32, copy=False),
            highest=self.highest.astype(np.float32, copy=False),
            rows=np.concatenate(self.rows).astype(np.float32, copy=False),
            count=self.count,
        )
