"""Matrix products in 8 bits with activation scales from calibration, in standard operators: QDQ.

Per linear layer: DequantizeLinear(QuantizeLinear(x)) @ DequantizeLinear(W_int8), with one scale for the activations
and one for each column of the weights. Every runtime that knows the convention computes the product in 8 bits; to any
other it is what it says, float32. ONNX Runtime's CPU provider makes one MatMulIntegerToFloat of it, with 32-bit sums
and a float32 result, so nothing is rounded between a product and its bias. Softmax, LayerNormalization, GELU and the
two products inside attention stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.floating import finish, in_float
from bertport.quantize.tables import look_up, store_table, take_first

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.quantize.builder import GraphBuilder
    from bertport.quantize.int8 import WeightCache
    from bertport.quantize.ranges import Form, Range
    from bertport.quantize.rewrite import Linear, Table

__all__ = ["StaticEmitter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticEmitter:
    """Writes linear layers with quantized inputs, but for those named, and tables in 8 bits."""

    weights: WeightCache
    """The weights in 8 bits."""
    ranges: Mapping[str, Range]
    """What calibration found, by the name of the activation."""
    form: Form
    """How activations are rounded."""
    higher: frozenset[str] = field(default_factory=frozenset)
    """Names of the linear layers left in float32."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Write one linear layer."""
        if linear.name in self.higher and linear.table is None:
            in_float(builder, linear)
            return
        source = linear.source if linear.name in self.higher else self._rounded(builder, linear.source)
        matrix = self._matrix(builder, linear)
        if linear.flat and not self.form.symmetric:
            # The CPU provider makes a Gemm of a product of two matrices and the bias behind it, which it then computes
            # in float32. One more axis in between keeps it from that; it costs nothing.
            first = builder.constant("constant.first_axis", np.array([0], dtype=np.int64))
            product = builder.node("MatMul", [source, matrix], f"{linear.output}.product")
            product = builder.node("Unsqueeze", [product, first], f"{linear.output}.deep")
            finish(builder, "Squeeze", [product, first], linear)
            return
        finish(builder, "MatMul", [source, matrix], linear)

    def lookup(self, builder: GraphBuilder, table: Table, ids: str, output: str) -> None:
        """Look rows up."""
        if self.form.symmetric:
            builder.node("Gather", [self._dequantized(builder, table), ids], output)
        else:
            look_up(builder, store_table(builder, self.weights, table), ids, output)

    def leading(self, builder: GraphBuilder, table: Table, count: str, output: str) -> None:
        """Take the first rows."""
        take_first(builder, store_table(builder, self.weights, table), count, output)

    def _rounded(self, builder: GraphBuilder, source: str) -> str:
        """Round activations to 8 bits and back; once, also where several layers take them."""
        output = f"{source}.dequantized"
        if builder.has(output):
            return output
        scale, zero = self.form.parameters(self.ranges[source])
        step, middle = builder.scalar(float(scale), np.float32), builder.scalar(int(zero), self.form.dtype)
        rounded = builder.node("QuantizeLinear", [source, step, middle], f"{source}.quantized")
        return builder.node("DequantizeLinear", [rounded, step, middle], output)

    def _matrix(self, builder: GraphBuilder, linear: Linear) -> str:
        """Give the weights, (inputs, outputs) in float32, dequantized."""
        if linear.table is None:
            made = self.weights.linear(linear)
            values = builder.constant(f"{linear.name}.int8", made.values)
            scales = builder.constant(f"{linear.name}.scales", made.scales)
        elif self.form.symmetric:
            # TensorRT takes integers from nowhere but a DequantizeLinear, and moves the transposition into the weights.
            table = self._dequantized(builder, linear.table)
            return builder.node("Transpose", [table], f"{linear.name}.matrix", perm=[1, 0])
        else:
            # The CPU provider folds a transposition of integers when it loads the graph, but not one behind a
            # DequantizeLinear: it would dequantize the table at every run.
            table, scales = store_table(builder, self.weights, linear.table)
            values = builder.node("Transpose", [table], f"{linear.name}.int8", perm=[1, 0])
        return _dequantize(builder, values, scales, f"{linear.name}.matrix", axis=1)

    def _dequantized(self, builder: GraphBuilder, table: Table) -> str:
        output = f"{table.name}.dequantized"
        if builder.has(output):
            return output
        values, scales = store_table(builder, self.weights, table)
        return _dequantize(builder, values, scales, output, axis=0)


def _dequantize(builder: GraphBuilder, values: str, scales: str, output: str, *, axis: int) -> str:
    return builder.node("DequantizeLinear", [values, scales], output, axis=axis)
