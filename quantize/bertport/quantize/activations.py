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
    largest: NDArray[np.float32]
    """The largest magnitude of each channel. Shape: (inputs,)"""
    rows: NDArray[np.float32]
    """Some rows of X. Shape: (at most about `ROWS`, inputs)"""
    count: int
    """The number of tokens."""


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
        self.gram: NDArray[np.float32] | None = None
        self.largest: NDArray[np.float32] | None = None
        self.rows: list[NDArray[np.float32]] = []

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in one text's values, of shape (..., channels)."""
        values = values.reshape(-1, values.shape[-1])
        if not len(values):
            return
        square, largest = values.T @ values, np.abs(values).max(axis=0)
        if self.gram is None or self.largest is None:
            self.gram, self.largest = square, largest
        else:
            self.gram += square
            np.maximum(self.largest, largest, out=self.largest)
        self.count += len(values)
        self.rows.append(values[self.rng.permutation(len(values))[: self.share]])

    def result(self) -> Activations:
        """Give what was gathered; there was some."""
        assert self.gram is not None  # noqa: S101 — for the type checker
        assert self.largest is not None  # noqa: S101 — as above
        return Activations(gram=self.gram, largest=self.largest, rows=np.concatenate(self.rows), count=self.count)
