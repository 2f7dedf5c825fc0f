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

from bertport.quantize.recipes.common import REST_STEPS, add_bias, float_matmul, leading_rows, look_up, store_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.quantize.calibration.ranges import QuantizationScheme, Range
    from bertport.quantize.graph.builder import GraphBuilder
    from bertport.quantize.graph.rewrite import Linear, Table
    from bertport.quantize.weights.cache import WeightCache

__all__ = ["QdqEmitter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqEmitter:
    """Writes linear layers with quantized inputs, but for those named, and tables in 8 bits."""

    weights: WeightCache
    """The weights in 8 bits."""
    ranges: Mapping[str, Range]
    """What calibration found, by the name of the activation."""
    scheme: QuantizationScheme
    """How activations are rounded."""
    high_precision_layers: frozenset[str] = field(default_factory=frozenset)
    """Names of the linear layers in higher precision."""
    float_fallback: bool = False
    """Whether these compute in float32, their weights stored in 16 bits; otherwise their activations have 16 bits, in
    two products with the same 8-bit weights."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Write one linear layer."""
        higher = linear.name in self.high_precision_layers
        if higher and self.float_fallback and linear.table is None:
            float_matmul(builder, linear)
            return
        matrix = self._matrix(builder, linear)
        if higher and self.float_fallback:
            self._finish(builder, "MatMul", [linear.source, matrix], linear)
        elif higher:
            parts = [self._rounded(builder, linear.source), self._rest(builder, linear.source)]
            products = [
                self._product(builder, part, matrix, f"{linear.output}.part.{number}", linear)
                for number, part in enumerate(parts)
            ]
            self._finish(builder, "Add", products, linear)
        else:
            rounded = self._rounded(builder, linear.source)
            self._finish(builder, "MatMul", [rounded, matrix], linear)

    def _deepens(self, linear: Linear) -> bool:
        """Tell whether a product of two matrices needs one more axis.

        The CPU provider makes a Gemm of such a product and what is added to it, which it then computes in float32. An
        axis in between keeps it from that; it costs nothing.
        """
        return linear.flat and not self.scheme.symmetric

    def _product(self, builder: GraphBuilder, source: str, matrix: str, output: str, linear: Linear) -> str:
        """Multiply; the product has one more axis in front where it needs it."""
        product = builder.node("MatMul", [source, matrix], output)
        if not self._deepens(linear):
            return product
        return builder.node("Unsqueeze", [product, _first_axis(builder)], f"{output}.deep")

    def _finish(self, builder: GraphBuilder, operator: str, inputs: list[str], linear: Linear) -> None:
        """Add the last operator of a layer, and its bias where it has one."""
        if not self._deepens(linear):
            add_bias(builder, operator, inputs, linear)
            return
        if operator == "MatMul":
            deep = self._product(builder, inputs[0], inputs[1], f"{linear.output}.product", linear)
        else:
            deep = builder.node(operator, inputs, f"{linear.output}.sum")
        add_bias(builder, "Squeeze", [deep, _first_axis(builder)], linear)

    def lookup(self, builder: GraphBuilder, table: Table, ids: str, output: str) -> None:
        """Look rows up."""
        if self.scheme.symmetric:
            builder.node("Gather", [self._dequantized(builder, table), ids], output)
        else:
            look_up(builder, store_table(builder, self.weights, table), ids, output)

    def leading_rows(self, builder: GraphBuilder, table: Table, count: str, output: str) -> None:
        """Take the first rows."""
        leading_rows(builder, store_table(builder, self.weights, table), count, output)

    def _rounded(self, builder: GraphBuilder, source: str) -> str:
        """Round activations to 8 bits and back; once, also where several layers take them."""
        output = f"{source}.dequantized"
        if builder.has(output):
            return output
        scale, zero = self.scheme.parameters(self.ranges[source])
        step, middle = builder.scalar(float(scale), np.float32), builder.scalar(int(zero), self.scheme.dtype)
        rounded = builder.node("QuantizeLinear", [source, step, middle], f"{source}.quantized")
        return builder.node("DequantizeLinear", [rounded, step, middle], output)

    def _rest(self, builder: GraphBuilder, source: str) -> str:
        """Round what `_rounded` leaves of activations, to 8 bits of its own, and back.

        Within the range that is at most half a step; what lies beyond is cut off, as before.
        """
        output = f"{source}.rest.dequantized"
        if builder.has(output):
            return output
        scale, _ = self.scheme.parameters(self.ranges[source])
        rest = builder.node("Sub", [source, self._rounded(builder, source)], f"{source}.rest")
        step = builder.scalar(float(scale) / REST_STEPS, np.float32)
        middle = builder.scalar(0 if self.scheme.symmetric else 128, self.scheme.dtype)
        rounded = builder.node("QuantizeLinear", [rest, step, middle], f"{source}.rest.quantized")
        return builder.node("DequantizeLinear", [rounded, step, middle], output)

    def _matrix(self, builder: GraphBuilder, linear: Linear) -> str:
        """Return the weights, (inputs, outputs) in float32, dequantized."""
        if linear.table is None:
            made = self.weights.linear(linear)
            values = builder.constant(f"{linear.name}.int8", made.values)
            scales = builder.constant(f"{linear.name}.scales", made.scales)
        elif self.scheme.symmetric:
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


def _first_axis(builder: GraphBuilder) -> str:
    return builder.constant("constant.first_axis", np.array([0], dtype=np.int64))


def _dequantize(builder: GraphBuilder, values: str, scales: str, output: str, *, axis: int) -> str:
    return builder.node("DequantizeLinear", [values, scales], output, axis=axis)
