"""Embedding tables in 8 bits with a scale for each row: how they are stored, and how rows are taken out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bertport.quantize.graph.builder import GraphBuilder
    from bertport.quantize.graph.rewrite import Table
    from bertport.quantize.recipes.dynamic import WeightCache

__all__ = ["look_up", "store_table", "take_first"]


def store_table(builder: GraphBuilder, weights: WeightCache, table: Table) -> tuple[str, str]:
    """Store a table, (entries, hidden) in 8 bits, and its scales, (entries,); give their names."""
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


def take_first(builder: GraphBuilder, stored: tuple[str, str], count: str, output: str) -> None:
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
