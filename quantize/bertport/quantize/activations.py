"""What goes into each linear layer on real text: as much of it as fitting the weights needs, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.compare.graph import make_batch, open_onnx

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
    """Run samples one by one, so that nothing is padded, and gather what passes some points of the graph.

    Args:
        model: A graph with its weights in memory; it is not changed.
        names: Of activations whose last axis is the layer's input.
        samples: What to run.
        threads: As in `open_onnx`.
        progress: Told of what is done and of how much.
    """
    wanted = sorted(set(names))
    graph = open_onnx(_with_outputs(model, wanted).SerializeToString(), threads=threads)
    rng = np.random.default_rng(0)
    share = max(1, -(-ROWS // max(1, len(samples))))
    gathered = {name: _Gathering() for name in wanted}
    for done, sample in enumerate(samples, 1):
        for name, value in graph.run(make_batch([sample]), wanted).items():
            gathered[name].add(value.reshape(-1, value.shape[-1]), share, rng)
        progress("running the calibration text", done, len(samples))
    return {name: each.result() for name, each in gathered.items() if each.count}


class _Gathering:
    """What was gathered at one point."""

    def __init__(self) -> None:
        self.count = 0
        self.gram: NDArray[np.float32] | None = None
        self.largest: NDArray[np.float32] | None = None
        self.rows: list[NDArray[np.float32]] = []

    def add(self, values: NDArray[np.float32], share: int, rng: np.random.Generator) -> None:
        """Take in the rows of one text, and keep `share` of them."""
        if not len(values):
            return
        square, largest = values.T @ values, np.abs(values).max(axis=0)
        if self.gram is None or self.largest is None:
            self.gram, self.largest = square, largest
        else:
            self.gram += square
            np.maximum(self.largest, largest, out=self.largest)
        self.count += len(values)
        self.rows.append(values[rng.permutation(len(values))[:share]])

    def result(self) -> Activations:
        """Give what was gathered; there was some."""
        assert self.gram is not None  # noqa: S101 — for the type checker
        assert self.largest is not None  # noqa: S101 — as above
        return Activations(gram=self.gram, largest=self.largest, rows=np.concatenate(self.rows), count=self.count)


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Copy a graph, with more of its values among its outputs."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {each.name for each in copy.graph.output}
    added = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    copy.graph.output.extend(each for each in added if each.name not in there)
    return copy
