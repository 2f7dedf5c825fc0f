"""Weights in 4 or 8 bits, by blocks; activations stay float32 in the graph.

ONNX Runtime's MatMulNBits with accuracy level 4 rounds activations to 8 bits inside the kernel, by blocks of each
row, so that neither batch mates nor padding change what is multiplied. With 4 bits on a CPU that has AVX2 alone, the
kernel for a single row sums in another order than that for several, which shows in the last bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bertport.quantize.graph.builder import LEAST_OPSET, MICROSOFT
from bertport.quantize.recipes.blocks import EIGHT_BITS, Blocks, quantize_blocks
from bertport.quantize.recipes.common import add_bias, float_matmul

if TYPE_CHECKING:
    from bertport.quantize.graph.builder import GraphBuilder
    from bertport.quantize.graph.rewrite import Linear, Table

__all__ = ["WeightOnlyEmitter"]

INT8_COMPUTE = 4
"""MatMulNBits' accuracy level that multiplies in 8 bits; the others turn weights into float32 first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOnlyEmitter:
    """Writes linear layers as MatMulNBits, and tables in 8 bits by blocks; a tied decoder shares its table."""

    opset: ClassVar[int] = LEAST_OPSET
    tanh_gelu: ClassVar[bool] = False

    bits: int
    """Bits of the linear layers' weights: 4 or 8."""
    block: int
    """Inputs in a block."""
    high_precision_layers: frozenset[str] = field(default_factory=frozenset)
    """Names of the linear layers in higher precision: 8 bits, or float32 where the others have 8. A tied decoder, whose
    table has 8 bits anyway, multiplies by it in float32."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Write one linear layer."""
        if linear.name in self.high_precision_layers and (linear.table or self.bits == EIGHT_BITS):
            self._float(builder, linear)
            return
        if linear.table:
            made, packed, scales = self._stored_table(builder, linear.table)
            shape = builder.constant(f"{linear.table.name}.shape", np.array(made.packed.shape, dtype=np.int64))
            packed = builder.node("Reshape", [packed, shape], f"{linear.name}.blocks")
        else:
            bits = EIGHT_BITS if linear.name in self.high_precision_layers else self.bits
            made = quantize_blocks(linear.weights, bits=bits, block=self.block)
            packed = builder.constant(f"{linear.name}.int{made.bits}", made.packed)
            scales = builder.constant(f"{linear.name}.scales", made.scales)
        inputs, outputs = linear.weights.shape
        product = linear.output if linear.bias is None else f"{linear.output}.unbiased"
        builder.node(
            "MatMulNBits",
            [linear.source, packed, scales],
            product,
            domain=MICROSOFT,
            K=inputs,
            N=outputs,
            bits=made.bits,
            block_size=made.block,
            accuracy_level=INT8_COMPUTE,
        )
        if linear.bias is not None:
            builder.node("Add", [product, linear.bias], linear.output)

    def _float(self, builder: GraphBuilder, linear: Linear) -> None:
        """Leave a layer in float32; a tied decoder still multiplies by its table, so that no second copy is stored.

        ONNX Runtime scales the table once, when it loads the graph. MatMulNBits with another accuracy level would do so
        at every run, which took 150 times as long as the product in 8 bits.
        """
        if linear.table is None:
            float_matmul(builder, linear)
            return
        made, packed, scales = self._stored_table(builder, linear.table)
        self._scale(builder, made, packed, scales, f"{linear.name}.rows")
        matrix = builder.node("Transpose", [f"{linear.name}.rows"], f"{linear.name}.float", perm=[1, 0])
        add_bias(builder, "MatMul", [linear.source, matrix], linear)

    def lookup(self, builder: GraphBuilder, table: Table, ids: str, output: str) -> None:
        """Look rows up in 8 bits, and scale their blocks."""
        made, packed, scales = self._stored_table(builder, table)
        rows = builder.node("Gather", [packed, ids], f"{output}.integers")
        self._scale(builder, made, rows, builder.node("Gather", [scales, ids], f"{output}.scales"), output)

    def leading_rows(self, builder: GraphBuilder, table: Table, count: str, output: str) -> None:
        """Take the first rows in 8 bits, and scale their blocks."""
        made, packed, scales = self._stored_table(builder, table)
        zero = builder.constant("constant.row_0", np.array([0], dtype=np.int64))
        rows = builder.node("Slice", [packed, zero, count, zero], f"{output}.integers")
        per_row = builder.node("Slice", [scales, zero, count, zero], f"{output}.scales")
        self._scale(builder, made, rows, per_row, output)

    def _stored_table(self, builder: GraphBuilder, table: Table) -> tuple[Blocks, str, str]:
        """Name a table, (entries, padded hidden) in 8 bits, and its scales, (entries, blocks)."""
        made = quantize_blocks(table.rows.T, bits=EIGHT_BITS, block=self.block)
        packed = builder.constant(f"{table.name}.int8", made.packed.reshape(len(made.packed), -1))
        return made, packed, builder.constant(f"{table.name}.scales", made.scales)

    def _scale(self, builder: GraphBuilder, made: Blocks, rows: str, scales: str, output: str) -> None:
        from onnx import TensorProto

        last = builder.constant("constant.last_axis", np.array([-1], dtype=np.int64))
        as_float = builder.node("Cast", [rows], f"{output}.float", to=TensorProto.FLOAT)
        centred = builder.node("Sub", [as_float, builder.scalar(128, np.float32)], f"{output}.centred")
        # The last axis is split into blocks, scaled, and put together; the axes before it are as the ids have them.
        column = builder.node("Unsqueeze", [scales, last], f"{output}.column")
        front = builder.node("Shape", [scales], f"{output}.front", end=-1)
        width = builder.constant(f"constant.blocks.{made.block}", np.array([-1, made.block], dtype=np.int64))
        split = builder.node("Concat", [front, width], f"{output}.split", axis=0)
        blocks = builder.node("Reshape", [centred, split], f"{output}.by_block")
        scaled = builder.node("Mul", [blocks, column], f"{output}.scaled")
        joined = builder.node("Concat", [front, last], f"{output}.joined", axis=0)
        whole = output if made.inputs % made.block == 0 else f"{output}.padded"
        builder.node("Reshape", [scaled, joined], whole)
        if whole != output:
            zero = builder.constant("constant.row_0", np.array([0], dtype=np.int64))
            end = builder.constant(f"constant.width.{made.inputs}", np.array([made.inputs], dtype=np.int64))
            builder.node("Slice", [whole, zero, end, last], output)
