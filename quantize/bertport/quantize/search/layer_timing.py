"""Time that the lower precision saves in each linear layer, timed alone in both precisions by turns."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.machine import awaited, machine_lock
from bertport.quantize.graph.builder import GraphBuilder
from bertport.runtime.session import open_session, session_options
from bertport.runtime.threads import intra_op_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

    from bertport.quantize.deadline import Progress
    from bertport.quantize.graph.rewrite import Emitter, Linear

__all__ = ["saved_milliseconds"]

TOKENS = 128
"""Rows that go through a layer of the encoder."""
PICKED = 1
"""Rows that go through a layer of a head, as when one word of a text is masked."""
ROUNDS, RUNS = 5, 4
"""Rounds that are timed, and runs of each graph in a round."""


def saved_milliseconds(
    layers: Sequence[Linear], emitter: Callable[[frozenset[str]], Emitter], *, progress: Progress
) -> dict[str, float]:
    """Time one layer of each shape in both precisions, with the machine's lock held.

    Args:
        layers: As `linears` lists them.
        emitter: Returns the recipe's emitter that leaves the named layers in higher precision.
        progress: Told of what is done and of how much.

    Returns:
        Milliseconds saved by the lower precision, by the layer's name, in all products with its matrix; negative where
        the higher is faster.
    """
    by_kind: dict[tuple[object, ...], float] = {}
    saved: dict[str, float] = {}
    for done, layer in enumerate(layers, 1):
        kind = _kind(layer, emitter(frozenset()))
        if kind not in by_kind:
            by_kind[kind] = _saved(layer, emitter, progress)
        saved[layer.name] = saved.get(layer.name, 0.0) + by_kind[kind]
        progress("timing layers", done, len(layers))
    return saved


def _kind(layer: Linear, emitter: Emitter) -> tuple[object, ...]:
    """Return the key of layers that take the same time: shapes, and operators, which depend on outlier channels."""
    operators = tuple(node.op_type for node in _alone(layer, emitter).graph.node)
    return layer.weights.shape, layer.gelu, layer.flat, operators


def _saved(layer: Linear, emitter: Callable[[frozenset[str]], Emitter], progress: Progress) -> float:
    rows = [PICKED] if layer.flat else [1, TOKENS]
    given = {layer.source: np.random.default_rng(0).standard_normal((*rows, len(layer.weights)), dtype=np.float32)}
    emitters = [emitter(frozenset({layer.name})), emitter(frozenset())]
    threads = intra_op_threads(None)
    sessions = [
        open_session(_alone(layer, emitter).SerializeToString(), session_options(threads=threads))
        for emitter in emitters
    ]
    times: list[list[float]] = [[], []]
    with machine_lock(lambda: progress(awaited(), 0, 0)):
        for _ in range(ROUNDS + 1):
            for index, session in enumerate(sessions):
                for _ in range(RUNS):
                    began = time.perf_counter()
                    session.run(None, given)
                    times[index].append((time.perf_counter() - began) * 1e3)
    higher, lower = (statistics.median(taken[RUNS:]) for taken in times)  # the first round warms up
    return higher - lower


def _alone(layer: Linear, emitter: Emitter) -> onnx.ModelProto:
    """Return a graph of this layer only, without its bias."""
    import dataclasses

    from onnx import TensorProto, helper

    builder = GraphBuilder(emitter.opset)
    emitter.linear(builder, dataclasses.replace(layer, bias=None))
    inputs, outputs = layer.weights.shape
    rows = [PICKED] if layer.flat else [1, TOKENS]
    given = helper.make_tensor_value_info(layer.source, TensorProto.FLOAT, [*rows, inputs])
    output = helper.make_tensor_value_info(layer.output, TensorProto.FLOAT, [*rows, outputs])
    frame = helper.make_model(helper.make_graph([], layer.name, [given], [output]), ir_version=8)
    return builder.model(frame)
