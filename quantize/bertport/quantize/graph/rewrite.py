"""Rewriting a fused graph: every matrix product and embedding table goes to an emitter, the rest stays as it is.

What becomes of a matrix is the recipe's affair (`recipes/`); this module knows BERT's operators.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bertport.quantize.graph.builder import MICROSOFT, GraphBuilder

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["NARROWEST", "Emitter", "Linear", "Table", "linears", "rewrite"]

NARROWEST = 16
"""Rows or columns below which a matrix stays as it is: the NSP head and token types, where 8 bits save nothing."""
GELU = frozenset({"BiasGelu", "Gelu", "FastGelu", "QuickGelu"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A matrix product with constant weights."""

    name: str
    """What people call it, for example `encoder.layer.0.output.dense`."""
    source: str
    """Name of the activations that go in; their last axis is multiplied."""
    output: str
    """Name of the activations that come out."""
    weights: NDArray[np.float32]
    """Shape: (inputs, outputs)"""
    bias: str | None
    """Initialiser to add to the product; None where a later operator adds it."""
    gelu: bool
    """Whether the activations come out of GELU, which never goes below -0.1701."""
    table: Table | None
    """The embedding table whose transpose the weights are, for a tied decoder."""
    flat: bool = False
    """Whether the activations are known to be a matrix, (rows, inputs): picked tokens, no longer (batch, length)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An embedding table."""

    name: str
    """Name of the initialiser."""
    rows: NDArray[np.float32]
    """Shape: (entries, hidden)"""
    tied: bool
    """Whether the MLM decoder multiplies by its transpose."""


class Emitter(Protocol):
    """What becomes of matrices and tables."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Add nodes that compute `linear.output` from `linear.source`."""

    def lookup(self, builder: GraphBuilder, table: Table, ids: str, output: str) -> None:
        """Add nodes that look rows up, by ids of any shape."""

    def leading_rows(self, builder: GraphBuilder, table: Table, count: str, output: str) -> None:
        """Add nodes that give a table's first rows, as many as `count`, of shape (1,), says."""


def rewrite(model: onnx.ModelProto, emitter: Emitter) -> onnx.ModelProto:
    """Return the graph again, with its matrices and tables as the emitter writes them.

    Args:
        model: A fused serving graph with its weights in memory, as `fusion.fuse` returns it; it is not changed.
        emitter: Of the recipe.
    """
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    pass_over = _Rewriting(model, emitter, GraphBuilder(opset))
    for node in model.graph.node:
        getattr(pass_over, _HANDLERS.get(node.op_type, "keep"))(node)
    return pass_over.builder.model(model)


def linears(model: onnx.ModelProto) -> tuple[Linear, ...]:
    """Return a graph's linear layers, in the order in which they run."""
    recorder = _Recorder()
    rewrite(model, recorder)
    return tuple(recorder.layers)


class _Recorder:
    """An emitter that only lists the layers."""

    def __init__(self) -> None:
        self.layers: list[Linear] = []

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:  # noqa: ARG002 — the emitter's signature
        """List a layer."""
        self.layers.append(linear)

    def lookup(self, builder: GraphBuilder, table: Table, ids: str, output: str) -> None:
        """Do nothing."""

    def leading_rows(self, builder: GraphBuilder, table: Table, count: str, output: str) -> None:
        """Do nothing."""


_HANDLERS = {
    "MatMul": "matmul",
    "Gemm": "gemm",
    "Gather": "gather",
    "Transpose": "transpose",
    "Attention": "attention",
    "EmbedLayerNormalization": "embeddings",
}


class _Rewriting:
    """One pass over the nodes, in their order."""

    def __init__(self, model: onnx.ModelProto, emitter: Emitter, builder: GraphBuilder) -> None:
        self.builder = builder
        self.emitter = emitter
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.tied = {self._table_behind(node) for node in model.graph.node if node.op_type in ("MatMul", "Gemm")}
        self.masks: dict[str, str] = {}
        self.attentions = 0

    def keep(self, node: onnx.NodeProto) -> None:
        """Leave a node as it is."""
        self.builder.keep(node)
        for name in node.input:
            self._take(name)

    def matmul(self, node: onnx.NodeProto) -> None:
        """Hand a product with a constant matrix to the emitter."""
        weights = self._matrix(node.input[1])
        if weights is None:
            self.keep(node)
        else:
            self._linear(node, weights, bias=None)

    def gemm(self, node: onnx.NodeProto) -> None:
        """Hand a plain x W + b, W transposed or not, to the emitter."""
        settings = _attributes(node)
        weights = self._matrix(node.input[1])
        plain = all(settings.get(name, 1.0) == 1.0 for name in ("alpha", "beta")) and not settings.get("transA", 0)
        if weights is None or not plain:
            self.keep(node)
            return
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None  # noqa: PLR2004 — A, B and C
        self._linear(node, weights.T if settings.get("transB", 0) else weights, bias=bias)

    def gather(self, node: onnx.NodeProto) -> None:
        """Hand a lookup in a table to the emitter."""
        table = self._table(node.input[0])
        if table is None or _attributes(node).get("axis", 0) != 0:
            self.keep(node)
        else:
            self.emitter.lookup(self.builder, table, self._take(node.input[1]), node.output[0])

    def transpose(self, node: onnx.NodeProto) -> None:
        """Drop the transposition of a constant matrix: whoever multiplies by it transposes the array itself."""
        if self._matrix(node.output[0]) is None:
            self.keep(node)

    def attention(self, node: onnx.NodeProto) -> None:
        """Split ONNX Runtime's Attention into one product for queries, keys and values, and attention proper.

        MultiHeadAttention takes the mask row by row; Attention had only its length.
        """
        weights, bias, mask = (*node.input, "", "", "")[1:4]
        matrix = self._matrix(weights)
        settings = _attributes(node)
        others = set(settings) - {"num_heads", "mask_filter_value", "scale", "unidirectional", "do_rotary"}
        if matrix is None or others or settings.get("unidirectional", 0) or settings.get("do_rotary", 0):
            self.keep(node)
            return
        name = f"encoder.layer.{self.attentions}.attention.qkv"
        self.attentions += 1
        self._linear(node, matrix, bias=None, name=name, output=name)
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        thirds = self.builder.constant(f"{name}.sizes", np.full(3, matrix.shape[1] // 3, dtype=np.int64))
        self.builder.nodes_out("Split", [name, thirds], parts, axis=-1)
        kept = {key: settings[key] for key in ("num_heads", "mask_filter_value", "scale") if key in settings}
        inputs = [*parts, self._take(bias), self.masks.get(mask, mask)]
        self.builder.nodes_out("MultiHeadAttention", inputs, [node.output[0]], domain=MICROSOFT, **kept)

    def embeddings(self, node: onnx.NodeProto) -> None:
        """Write out the sum of three embeddings and its LayerNormalization, which take tables in 8 bits."""
        ids, types, words, positions, segments, gamma, beta, mask, order = (*node.input, *[""] * 9)[:9]
        tables = [self._table(name) for name in (words, positions)]
        if None in tables or (types and not segments):
            self.keep(node)
            return
        word_table, position_table = (table for table in tables if table)
        add = self.builder
        self.emitter.lookup(add, word_table, ids, "embeddings.words")
        if order:
            self.emitter.lookup(add, position_table, self._take(order), "embeddings.positions")
        else:
            count = add.node("Shape", [ids], "embeddings.length", start=1, end=2)
            self.emitter.leading_rows(add, position_table, count, "embeddings.positions")
        total = add.node("Add", ["embeddings.words", "embeddings.positions"], "embeddings.placed")
        if types:
            rows = add.node("Gather", [self._take(segments), types], "embeddings.segments")
            total = add.node("Add", [total, rows], "embeddings.sum")
        inputs = [total, self._take(gamma), self._take(beta)]
        epsilon = _attributes(node).get("epsilon", 1e-12)
        add.node("LayerNormalization", inputs, node.output[0], axis=-1, epsilon=epsilon)
        if len(node.output) > 1 and node.output[1]:
            self.masks[node.output[1]] = mask

    def _linear(
        self,
        node: onnx.NodeProto,
        weights: NDArray[np.float32],
        *,
        bias: str | None,
        name: str | None = None,
        output: str | None = None,
    ) -> None:
        producer = self.producers.get(node.input[0])
        tied = self._table_behind(node)
        self.emitter.linear(
            self.builder,
            Linear(
                name=name or _readable(node.input[1]),
                source=self._take(node.input[0]),
                output=output or node.output[0],
                weights=weights,
                bias=self._take(bias) if bias else None,
                gelu=producer is not None and producer.op_type in GELU,
                table=self._table(tied) if tied else None,
                flat=node.op_type == "Gemm" or self._picked(node.input[0]),
            ),
        )

    def _picked(self, name: str) -> bool:
        """Tell whether activations are picked tokens, possibly shifted and scaled by constants."""
        producer = self.producers.get(name)
        while producer is not None and producer.op_type in ("Sub", "Mul") and producer.input[1] in self.initializers:
            producer = self.producers.get(producer.input[0])
        return producer is not None and producer.op_type == "Gather"

    def _take(self, name: str) -> str:
        """Bring an initialiser along when the name is one; give the name."""
        if name in self.initializers:
            self.builder.copy(self.initializers[name])
        return name

    def _matrix(self, name: str) -> NDArray[np.float32] | None:
        """Read a constant float32 matrix worth quantizing, transposed where a node transposes it."""
        from onnx import TensorProto, numpy_helper

        producer = self.producers.get(name)
        if producer is not None and producer.op_type == "Transpose" and producer.input[0] in self.initializers:
            matrix = self._matrix(producer.input[0])
            return None if matrix is None else matrix.T
        tensor = self.initializers.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:  # noqa: PLR2004 — a matrix
            return None
        return numpy_helper.to_array(tensor) if min(tensor.dims) >= NARROWEST else None

    def _table(self, name: str) -> Table | None:
        rows = self._matrix(name) if name in self.initializers else None
        return None if rows is None else Table(name=name, rows=rows, tied=name in self.tied)

    def _table_behind(self, node: onnx.NodeProto) -> str | None:
        """Name the initialiser whose transpose a product multiplies by; None for another kind of product."""
        producer = self.producers.get(node.input[1])
        if producer is not None and producer.op_type == "Transpose" and producer.input[0] in self.initializers:
            return str(producer.input[0])
        if node.op_type == "Gemm" and _attributes(node).get("transB", 0) and node.input[1] in self.initializers:
            name = str(node.input[1])
            return name if self._looked_up(name) else None
        return None

    def _looked_up(self, name: str) -> bool:
        return any(
            name in node.input and node.op_type in ("Gather", "EmbedLayerNormalization")
            for node in self.producers.values()
        )


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _readable(weight: str) -> str:
    name = re.sub(r"(\.transposed|\.weight|_weight)+$", "", weight).removeprefix("bert.")
    return "cls.predictions.decoder" if name == "embeddings.word_embeddings" else name
