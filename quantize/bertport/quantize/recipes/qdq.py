"""Matrix products in 8 bits with activation scales from calibration, in standard operators: QDQ.

Per linear layer: DequantizeLinear(QuantizeLinear(x)) @ DequantizeLinear(W_int8), with one scale for the activations
and one for each column of the weights. Every runtime that knows the convention computes the product in 8 bits; to any
other it is what it says, float32. ONNX Runtime's CPU provider makes one MatMulIntegerToFloat of it, with 32-bit sums
and a float32 result, so nothing is rounded between a product and its bias. Softmax, LayerNormalization, GELU and the
two products inside attention stay float32.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bertport.quantize.graph.builder import LEAST_OPSET
from bertport.quantize.recipes.common import (
    REST_STEPS,
    add_bias,
    float_matmul,
    leading_rows,
    look_up,
    multiply_apart,
    store_table,
)

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

    opset: ClassVar[int] = LEAST_OPSET
    tanh_gelu: ClassVar[bool] = False

    weights: WeightCache
    """The weights in 8 bits."""
    ranges: Mapping[str, Range]
    """Calibrated range of each activation, by its name."""
    scheme: QuantizationScheme
    """Quantization scheme of the activations."""
    high_precision_layers: frozenset[str] = field(default_factory=frozenset)
    """Names of the linear layers in higher precision."""
    float_fallback: bool = False
    """Whether these compute in float32, their weights stored in 16 bits; otherwise their activations have 16 bits, in
    two products with the same 8-bit weights. A tied decoder, whose table stays in 8 bits, gets the latter anyway."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Write one linear layer."""
        higher = linear.name in self.high_precision_layers
        if higher and self.float_fallback and linear.table is None:
            float_matmul(builder, linear)
            return
        plan = self.weights.plan(linear)
        write = self._sixteen_bits if higher else self._eight_bits
        if plan is None or not len(plan.kept_in_float):
            write(builder, linear)
            return
        rounded = dataclasses.replace(linear, output=f"{linear.output}.rounded", bias=None)
        write(builder, rounded)
        apart = multiply_apart(builder, linear, plan.kept_in_float, picked=f"{linear.source}.picked")
        add_bias(builder, "Add", [rounded.output, apart], linear)

    def _eight_bits(self, builder: GraphBuilder, linear: Linear) -> None:
        """Multiply activations of 8 bits.

        Of a product of two matrices and what is added to it the CPU provider makes a Gemm, which it computes in
        float32: one more axis in between keeps it from that, and costs nothing.
        """
        inputs = [self._rounded(builder, linear.source), self._matrix(builder, linear)]
        if self.scheme.symmetric or not linear.flat:
            add_bias(builder, "MatMul", inputs, linear)
            return
        product = builder.node("MatMul", inputs, f"{linear.output}.product")
        first = builder.constant("constant.first_axis", np.array([0], dtype=np.int64))
        deep = builder.node("Unsqueeze", [product, first], f"{linear.output}.product.deep")
        add_bias(builder, "Squeeze", [deep, first], linear)

    def _sixteen_bits(self, builder: GraphBuilder, linear: Linear) -> None:
        """Multiply activations of 16 bits: what 8 bits hold, and what they leave in 8 bits of its own.

        The few rows of a head cost what reading their weights costs: there both parts are rows of one product.
        """
        matrix = self._matrix(builder, linear)
        if linear.flat:
            product = builder.node("MatMul", [self._stacked(builder, linear.source), matrix], f"{linear.output}.both")
            upper, lower = builder.halves(product, [f"{linear.output}.upper", f"{linear.output}.lower"])
            lower = builder.node("Mul", [lower, builder.scalar(1 / REST_STEPS, np.float32)], f"{linear.output}.rest")
            add_bias(builder, "Add", [upper, lower], linear)
            return
        parts = [self._rounded(builder, linear.source), self._rest(builder, linear.source)]
        products = [
            builder.node("MatMul", [part, matrix], f"{linear.output}.part.{number}")
            for number, part in enumerate(parts)
        ]
        add_bias(builder, "Add", products, linear)

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

    def _stacked(self, builder: GraphBuilder, source: str) -> str:
        """Round a matrix of activations to 8 bits and back, and below its rows what that leaves, enlarged."""
        output = f"{source}.both.dequantized"
        if builder.has(output):
            return output
        covered = self.ranges[source]
        step = builder.scalar(max(-covered.low, covered.high) / 127, np.float32)
        middle = builder.scalar(0 if self.scheme.symmetric else 128, self.scheme.dtype)

        def rounded(values: str, name: str) -> str:
            integers = builder.node("QuantizeLinear", [values, step, middle], f"{name}.quantized")
            return builder.node("DequantizeLinear", [integers, step, middle], f"{name}.dequantized")

        upper = rounded(source, f"{source}.upper")
        rest = builder.node("Sub", [source, upper], f"{source}.left")
        rest = builder.node("Mul", [rest, builder.scalar(REST_STEPS, np.float32)], f"{source}.enlarged")
        return rounded(builder.node("Concat", [upper, rest], f"{source}.both", axis=0), f"{source}.both")

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


def _dequantize(builder: GraphBuilder, values: str, scales: str, output: str, *, axis: int) -> str:
    return builder.node("DequantizeLinear", [values, scales], output, axis=axis)
