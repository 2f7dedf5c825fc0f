"""What goes into each linear layer on real text: as much of it as fitting the weights needs, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.calibration import observe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from bertport.compare.masking import Sample
    from bertport.quantize.evaluation import Progress

__all__ = ["Activations", "collect"]

ROWS = 512
"""Rows kept of each input, drawn from all texts alike."""


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


def collect(
    model: onnx.ModelProto,
    names: Iterable[str],
    samples: Sequence[Sample],
    *,
    threads: int | None,
    progress: Progress,
) -> Mapping[str, Activations]:
    """Run samples and gather what passes some points of the graph.

    Args:
        model: A graph with its weights in memory; it is not changed.
        names: Of activations whose last axis is the layer's input.
        samples: What to run.
        threads: As in `open_onnx`.
        progress: Told of what is done and of how much.
    """
    share = max(1, -(-ROWS // max(1, len(samples))))
    rng = np.random.default_rng(0)
    gathered = {name: _Gathering(share, rng) for name in sorted(set(names))}
    observe(
        model,
        gathered,
        samples,
        threads=threads,
        progress=lambda done: progress("running the calibration text", done, len(samples)),
    )
    return {name: each.result() for name, each in gathered.items() if each.count}


class _Gathering:
    """What was gathered at one point, with `share` rows of each text kept."""

    def __init__(self, share: int, rng: np.random.Generator) -> None:
        self.share, self.rng = share, rng
        self.count = 0
        self.gram: NDArray[np.floating] = np.zeros((), dtype=np.float32)
        self.sum: NDArray[np.float64] = np.zeros((), dtype=np.float64)
        self.lowest: NDArray[np.floating] = np.full((), np.inf, dtype=np.float32)
        self.highest: NDArray[np.floating] = np.full((), -np.inf, dtype=np.float32)
        self.rows: list[NDArray[np.floating]] = []

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in one text's values, of shape (..., channels)."""
        values = values.reshape(-1, values.shape[-1])
        if not len(values):
            return
        square = values.T @ values
        if self.count:
            self.gram += square  # in place: a matrix of a megabyte or more
        else:
            self.gram = square
        self.sum = self.sum + values.sum(axis=0, dtype=np.float64)
        self.lowest = np.minimum(self.lowest, values.min(axis=0))
        self.highest = np.maximum(self.highest, values.max(axis=0))
        self.count += len(values)
        self.rows.append(values[self.rng.permutation(len(values))[: self.share]])

    def result(self) -> Activations:
        """Give what was gathered; there was some."""
        return Activations(
            gram=self.gram.astype(np.float32, copy=False),
            mean=self.sum / self.count,
            lowest=self.lowest.astype(np.float32, copy=False),
            highest=self.highest.astype(np.float32, copy=False),
            rows=np.concatenate(self.rows).astype(np.float32, copy=False),
            count=self.count,
        )
