"""Shared parts of the emitters: biases, products in float32, and embedding tables in 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.quantize.graph.builder import GraphBuilder
    from bertport.quantize.graph.rewrite import Linear, Table
    from bertport.quantize.weights.cache import WeightCache

__all__ = [
    "REST_STEPS",
    "add_bias",
    "float_matmul",
    "leading_rows",
    "look_up",
    "multiply_apart",
    "store_float16",
    "store_table",
]

REST_STEPS = 254
"""Steps into which one step is divided where activations get 16 bits: 127 on either side."""


def float_matmul(builder: GraphBuilder, linear: Linear) -> None:
    """Compute a linear layer in float32 from weights stored in 16 bits."""
    add_bias(builder, "MatMul", [linear.source, store_float16(builder, linear.name, linear.weights)], linear)


def store_float16(builder: GraphBuilder, name: str, weights: NDArray[np.float32]) -> str:
    """Store weights in 16 bits, which ONNX Runtime widens once, when it loads the graph; return their name in float32.

    Weights too large for 16 bits are stored as they are.
    """
    from onnx import TensorProto

    wide = f"{name}.float"
    if np.abs(weights).max(initial=0) >= np.finfo(np.float16).max:
        return builder.constant(wide, weights)
    half = builder.constant(f"{name}.half", weights.astype(np.float16))
    return builder.node("Cast", [half], wide, to=TensorProto.FLOAT)


def multiply_apart(builder: GraphBuilder, linear: Linear, channels: NDArray[np.int64], *, picked: str) -> str:
    """Multiply a few channels with their rows of the weights in float32; the rows are stored in 16 bits.

    Args:
        builder: The graph.
        linear: The layer.
        channels: The channels, in their order.
        picked: Name of their values; layers that take the same ones of one activation may share it.
    """
    name = f"{linear.name}.apart"
    builder.node("Gather", [linear.source, builder.constant(f"{picked}.channels", channels)], picked, axis=-1)
    rows = store_float16(builder, name, np.ascontiguousarray(linear.weights[channels]))
    return builder.node("MatMul", [picked, rows], f"{linear.output}.apart.product")


def add_bias(builder: GraphBuilder, operator: str, inputs: list[str], linear: Linear) -> None:
    """Add the last operator of a linear layer, and its bias where it has one."""
    if linear.bias is None:
        builder.node(operator, inputs, linear.output)
        return
    unbiased = builder.node(operator, inputs, f"{linear.output}.unbiased")
    builder.node("Add", [unbiased, linear.bias], linear.output)


def store_table(builder: GraphBuilder, weights: WeightCache, table: Table) -> tuple[str, str]:
    """Store a table, (entries, hidden) in 8 bits, and its scales, (entries,), one for each row; return their names."""
    made = weights.table(table)
    return (
        builder.constant(f"{table.name}.int8", made.values.T),
        builder.constant(f"{table.name}.scales", made.scales),
    )


def look_up(builder: GraphBuilder, stored: tuple[str, str], ids: str, output: str) -> None:
    """Look rows up in 8 bits, and scale them."""
    values, scales = stored
    rows = builder.node("Gather", [values, ids], f"{output}.integers")
    per_row = builder.node("Gather", [_as_column(builder, scales), ids], f"{output}.scales")
    _scale(builder, rows, per_row, output)


def leading_rows(builder: GraphBuilder, stored: tuple[str, str], count: str, output: str) -> None:
    """Take the first rows in 8 bits, and scale them."""
    values, scales = stored
    zero = builder.constant("constant.row_0", np.array([0], dtype=np.int64))
    rows = builder.node("Slice", [values, zero, count, zero], f"{output}.integers")
    per_row = builder.node("Slice", [_as_column(builder, scales), zero, count, zero], f"{output}.scales")
    _scale(builder, rows, per_row, output)


def _as_column(builder: GraphBuilder, scales: str) -> str:
    column = f"{scales}.column"
    if builder.has(column):
        return column
    last = builder.constant("constant.last_axis", np.array([-1], dtype=np.int64))
    return builder.node("Unsqueeze", [scales, last], column)


def _scale(builder: GraphBuilder, rows: str, scales: str, output: str) -> None:
    from onnx import TensorProto

    as_float = builder.node("Cast", [rows], f"{output}.float", to=TensorProto.FLOAT)
    builder.node("Mul", [as_float, scales], output)
