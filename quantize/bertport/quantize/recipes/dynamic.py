"""Matrix products in 8 bits with activation scales made at run time, one for each token.

Per linear layer, with x of shape (..., inputs) and one maximum per token:

    s = max(|x|) / 127      or, after GELU, max(x) / 239 or 231: that is the only side that needs room
    q = round(x / s) + 128                unsigned 8 bits; after GELU round(x / s) + 16 or 24
    y = (q - 128) @ W_int8, times the constant scales, times s

Channels that are kept in float (outliers.py) count as 0 above; y gets their product in float32.

ONNX Runtime's DynamicQuantizeMatMul takes one scale for the whole batch instead, so an answer moves with its batch
mates and its padding, and one outlier token spoils the others. A scale per token costs a few per cent of speed and
makes the KL divergence several times smaller (docs/research/quantization.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bertport.quantize.graph.builder import MICROSOFT
from bertport.quantize.recipes.common import (
    REST_STEPS,
    add_bias,
    float_matmul,
    leading_rows,
    look_up,
    multiply_apart,
    store_table,
)
from bertport.quantize.weights.activation_range import MIDDLE, ActivationRange, ranges_for

if TYPE_CHECKING:
    from bertport.quantize.graph.builder import GraphBuilder
    from bertport.quantize.graph.rewrite import Linear, Table
    from bertport.quantize.weights.cache import WeightCache

__all__ = ["DynamicEmitter"]

SCALES_BY_BLOCK = 21
"""The opset from which QuantizeLinear takes a scale for each block of channels, and so one for each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicEmitter:
    """Writes linear layers in 8 bits, but for those named, and tables in 8 bits."""

    opset: ClassVar[int] = SCALES_BY_BLOCK
    tanh_gelu: ClassVar[bool] = True
    weights: WeightCache
    """The weights in 8 bits."""
    high_precision_layers: frozenset[str] = field(default_factory=frozenset)
    """Names of the linear layers in higher precision."""
    float_fallback: bool = False
    """Whether these compute in float32, their weights stored in 16 bits; otherwise their activations have 16 bits, in
    two products with the same 8-bit weights."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Write one linear layer."""
        if linear.name in self.high_precision_layers and self.float_fallback:
            self._float(builder, linear)
            return
        if linear.name in self.high_precision_layers:
            span = ranges_for(linear)[0]
            shares, largest = _share_tokens(builder, linear.source, span)
            # The few rows of a head cost what reading their weights costs: both parts in one product read them once.
            write = _stacked if linear.flat and span.zero == MIDDLE else _two_products
            product = write(builder, shares, self._stored(builder, linear, decomposed=False), span, linear.output)
            add_bias(builder, "Mul", [product, largest], linear)
            return
        plan = self.weights.plan(linear)
        span = ranges_for(linear)[plan.rounding if plan else 0]
        source = linear.source
        if plan and plan.multiplies:
            factors = builder.constant(f"{linear.name}.factors", plan.factors)
            source = builder.node("Mul", [source, factors], f"{source}.treated.{linear.name}")
        rounded, scale, scales = _round_tokens(builder, linear, source, span)
        values, columns = self._stored(builder, linear)
        given = [rounded, values, scale, columns, builder.scalar(span.zero, np.uint8)]
        product = builder.node("MatMulIntegerToFloat", given, f"{linear.output}.product", domain=MICROSOFT)
        if plan and len(plan.kept_in_float):
            scaled = builder.node("Mul", [product, scales], f"{linear.output}.scaled")
            apart = multiply_apart(builder, linear, plan.kept_in_float, picked=f"{linear.output}.apart.picked")
            add_bias(builder, "Add", [scaled, apart], linear)
        else:
            add_bias(builder, "Mul", [product, scales], linear)

    def lookup(self, builder: GraphBuilder, table: Table, ids: str, output: str) -> None:
        """Look rows up in 8 bits, and scale them."""
        look_up(builder, store_table(builder, self.weights, table), ids, output)

    def leading_rows(self, builder: GraphBuilder, table: Table, count: str, output: str) -> None:
        """Take the first rows in 8 bits, and scale them."""
        leading_rows(builder, store_table(builder, self.weights, table), count, output)

    def _float(self, builder: GraphBuilder, linear: Linear) -> None:
        """Leave a layer in float32; a tied decoder still multiplies by its table, so that no second copy is stored."""
        if linear.table is None:
            float_matmul(builder, linear)
            return
        from onnx import TensorProto

        values, scales = self._stored(builder, linear)
        as_float = builder.node("Cast", [values], f"{linear.name}.integers", to=TensorProto.FLOAT)
        builder.node("Mul", [as_float, scales], f"{linear.name}.float")
        add_bias(builder, "MatMul", [linear.source, f"{linear.name}.float"], linear)

    def _stored(self, builder: GraphBuilder, linear: Linear, *, decomposed: bool = True) -> tuple[str, str]:
        """Name the weights, (inputs, outputs) in 8 bits, and their scales."""
        if linear.table is None:
            made = self.weights.linear(linear, decomposed=decomposed)
            return (
                builder.constant(f"{linear.name}.int8", made.values),
                builder.constant(f"{linear.name}.scales", made.scales),
            )
        values, scales = store_table(builder, self.weights, linear.table)
        # ONNX Runtime folds this when it loads the graph; a Gather on axis 1 instead was 7 to 28 times slower.
        return builder.node("Transpose", [values], f"{linear.name}.int8", perm=[1, 0]), scales


def _round_tokens(builder: GraphBuilder, linear: Linear, source: str, span: ActivationRange) -> tuple[str, str, str]:
    """Round to unsigned 8 bits; return the integers, the scale that they have in common, and those of the tokens."""
    if linear.flat or builder.opset < SCALES_BY_BLOCK:
        shares, largest = _share_tokens(builder, source, span)
        step = builder.scalar(1 / span.steps, np.float32)
        zero = builder.scalar(span.zero, np.uint8)
        return builder.node("QuantizeLinear", [shares, step, zero], f"{shares}.uint8"), step, largest
    where, largest = _reach(builder, source, span)
    if not span.absolute:
        largest = _at_least(builder, where, largest, span)
    # A token of zeros alone has the scale 0: whatever integers 0/0 becomes, their product is multiplied by 0.
    scales = builder.node("Mul", [largest, builder.scalar(1 / span.steps, np.float32)], f"{where}.step")
    # Zero points are as many as scales: those of (batch, length, 1) are one tensor for the whole encoder.
    zeros = f"{'tokens' if linear.by_token else where}.zeros.{span.zero}"
    if not builder.has(zeros):
        from onnx import numpy_helper

        shape = builder.node("Shape", [scales], f"{zeros}.shape")
        zero = numpy_helper.from_array(np.array([span.zero], dtype=np.uint8))
        builder.node("ConstantOfShape", [shape], zeros, value=zero)
    rounded = builder.node(
        "QuantizeLinear", [source, scales, zeros], f"{where}.uint8", axis=-1, block_size=len(linear.weights)
    )
    return rounded, builder.scalar(1, np.float32), scales


def _share_tokens(builder: GraphBuilder, source: str, span: ActivationRange) -> tuple[str, str]:
    """Add the activations as shares of their token's maximum, and the maxima."""
    where, largest = _reach(builder, source, span)
    largest = _at_least(builder, where, largest, span)
    return builder.node("Div", [source, largest], f"{where}.shares"), largest


def _reach(builder: GraphBuilder, source: str, span: ActivationRange) -> tuple[str, str]:
    """Add each token's maximum; return the name for what is made of the activations, and the maxima."""
    # Two layers behind one GELU may round it in two ways.
    where = source if span.absolute else f"{source}.{span.zero}"
    sized = builder.node("Abs", [source], f"{source}.absolute") if span.absolute else source
    return where, builder.reduce_max(sized, f"{where}.reached")


def _at_least(builder: GraphBuilder, where: str, largest: str, span: ActivationRange) -> str:
    """Add the maxima, none below the least."""
    return builder.node("Max", [largest, builder.scalar(span.floor, np.float32)], f"{where}.largest")


def _stacked(builder: GraphBuilder, shares: str, stored: tuple[str, str], span: ActivationRange, output: str) -> str:
    """Do the same for few rows: what 8 bits hold above what they leave, in one product."""
    upper, lower = _two_parts(builder, shares, span)
    both = builder.node("Concat", [upper, lower], f"{shares}.both", axis=0)
    values, scales = stored
    finest, middle = builder.scalar(1 / (span.steps * REST_STEPS), np.float32), builder.scalar(MIDDLE, np.uint8)
    products = builder.node(
        "MatMulIntegerToFloat", [both, values, finest, scales, middle], f"{output}.both", domain=MICROSOFT
    )
    first, second = builder.halves(products, [f"{output}.upper", f"{output}.lower"])
    first = builder.node("Mul", [first, builder.scalar(REST_STEPS, np.float32)], f"{output}.first")
    return builder.node("Add", [first, second], f"{output}.product")


def _two_products(
    builder: GraphBuilder, shares: str, stored: tuple[str, str], span: ActivationRange, output: str
) -> str:
    """Multiply what 8 bits hold, and what they leave in 8 bits of its own: 16 bits at the price of two products."""
    upper, lower = _two_parts(builder, shares, span)
    values, scales = stored
    first = builder.node(
        "MatMulIntegerToFloat",
        [upper, values, builder.scalar(1 / span.steps, np.float32), scales, builder.scalar(span.zero, np.uint8)],
        f"{output}.first",
        domain=MICROSOFT,
    )
    finest, middle = builder.scalar(1 / (span.steps * REST_STEPS), np.float32), builder.scalar(MIDDLE, np.uint8)
    second = builder.node(
        "MatMulIntegerToFloat", [lower, values, finest, scales, middle], f"{output}.second", domain=MICROSOFT
    )
    return builder.node("Add", [first, second], f"{output}.product")


def _two_parts(builder: GraphBuilder, shares: str, span: ActivationRange) -> tuple[str, str]:
    """Round to unsigned 8 bits, and what that leaves to 8 bits again."""
    steps = builder.node("Mul", [shares, builder.scalar(span.steps, np.float32)], f"{shares}.steps")
    whole = builder.node("Round", [steps], f"{shares}.whole")
    rest = builder.node("Sub", [steps, whole], f"{shares}.rest")
    one, zero = builder.scalar(1, np.float32), builder.scalar(span.zero, np.uint8)
    upper = builder.node("QuantizeLinear", [whole, one, zero], f"{shares}.upper")
    # The rest lies within half a step on either side.
    fine, middle = builder.scalar(1 / REST_STEPS, np.float32), builder.scalar(MIDDLE, np.uint8)
    return upper, builder.node("QuantizeLinear", [rest, fine, middle], f"{shares}.lower")
