"""Rewriting a fused graph: every matrix product and embedding table goes to an emitter, the rest stays as it is.

What becomes of a matrix is the recipe's affair (`recipes/`). Matrices and tables are recognised by the operators that
take them, and named as the graph names its weights, whatever the encoder is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from bertport.quantize.graph.builder import LEAST_OPSET, MICROSOFT, GraphBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["NARROWEST", "Emitter", "Linear", "Table", "linears", "rewrite"]

NARROWEST = 16
"""Rows or columns below which a matrix stays as it is: the NSP head and token types, where 8 bits save nothing."""
SMALLEST_TABLE = 1024
"""Numbers below which a table stays as it is: the biases of relative positions, a row for each of 32 distances."""
IDS = "input_ids"
"""The graph's input of (batch, length)."""
MASK = "attention_mask"
"""The graph's input that is 0 for padding, of (batch, length)."""
MASKED = 1e9
"""Value subtracted from the score of a masked key, before scaling: the exponential of a millionth of it is 0."""
TERMS = frozenset({"Add", "Sub", "Mul", "Div"})
ROW_BY_ROW = frozenset(
    {
        *("Attention", "MultiHeadAttention"),
        *("LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization"),
        *("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "Erf", "Relu", "Tanh", "Sigmoid"),
    }
)
"""Operators whose first output has the first two axes of their first input."""
EXTENDED = frozenset(
    {
        *("Cast", "Constant", "ConstantOfShape", "Equal", "Flatten", "Gelu", "Identity", "Pad", "Reshape"),
        *("Shape", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators that opsets 18 to 21 gave more types alone: what an older one allows, they compute as it did."""
GELU = frozenset({"BiasGelu", "Gelu", "FastGelu", "QuickGelu"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A matrix product with constant weights."""

    name: str
    """Readable name of the matrix, for example `encoder.layer.0.output.dense`; several products may share one."""
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
    by_token: bool = False
    """Whether the activations are known to have a row for each token of the batch, (batch, length, inputs)."""


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
    """Writer of a recipe's nodes for the graph's matrices and tables."""

    opset: ClassVar[int]
    """The version of the standard operators that it writes best; it takes an older one where other nodes need that."""
    tanh_gelu: ClassVar[bool]
    """Whether GELU with a bias is computed by tanh and not by erf: within 0.0005, and in two thirds of the time."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Add nodes that compute `linear.output` from `linear.source`."""

    def lookup(self, builder: GraphBuilder, table: Table, ids: str, output: str) -> None:
        """Add nodes that look rows up, by ids of any shape."""

    def leading_rows(self, builder: GraphBuilder, table: Table, count: str, output: str) -> None:
        """Add nodes that take a table's first rows, as many as `count`, of shape (1,), says."""


def rewrite(model: onnx.ModelProto, emitter: Emitter) -> onnx.ModelProto:
    """Return the graph again, with its matrices and tables as the emitter writes them.

    Args:
        model: A fused serving graph with its weights in memory, as `fusion.fuse` returns it; it is not changed.
        emitter: The recipe's emitter.
    """
    from onnx_ir import serde

    graph = serde.deserialize_model(model).graph
    opset = next(version for domain, version in graph.opset_imports.items() if domain in ("", "ai.onnx"))
    if opset < emitter.opset and all(_same_in(emitter.opset, node, opset) for node in graph):
        opset = emitter.opset
    rewriting = _Rewriting(emitter, GraphBuilder(opset), _Names(graph.initializers), _by_token(graph))
    for node in graph:
        getattr(rewriting, _HANDLERS.get(node.op_type, "keep"))(node)
    return rewriting.builder.model(model)


def linears(model: onnx.ModelProto) -> tuple[Linear, ...]:
    """Return a graph's products with constant matrices, in the order in which they run."""
    recorder = _Recorder()
    rewrite(model, recorder)
    return tuple(recorder.layers)


class _Recorder:
    """An emitter that only lists the layers."""

    opset: ClassVar[int] = LEAST_OPSET
    tanh_gelu: ClassVar[bool] = False

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
    "BiasGelu": "bias_gelu",
    "EmbedLayerNormalization": "embeddings",
}


class _Rewriting:
    """One pass over the nodes, in their order."""

    def __init__(self, emitter: Emitter, builder: GraphBuilder, names: _Names, by_token: frozenset[str]) -> None:
        self.builder = builder
        self.emitter = emitter
        self.names = names
        self.by_token = by_token

    def keep(self, node: ir.Node) -> None:
        """Leave a node as it is."""
        from onnx_ir import serde

        self.builder.keep(serde.serialize_node(node))
        for value in node.inputs:
            self._take(value)

    def matmul(self, node: ir.Node) -> None:
        """Hand a product with a constant matrix to the emitter."""
        weights = _matrix(node.inputs[1])
        if weights is None:
            self.keep(node)
        else:
            self._linear(node, weights)

    def gemm(self, node: ir.Node) -> None:
        """Hand a plain x W + b, W transposed or not, to the emitter."""
        attributes = node.attributes
        weights = _matrix(node.inputs[1])
        plain = all(attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if weights is None or not plain or attributes.get_int("transA", 0) != 0:
            self.keep(node)
            return
        bias = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 — A, B and C
        self._linear(node, weights.T if attributes.get_int("transB", 0) != 0 else weights, bias=bias)

    def gather(self, node: ir.Node) -> None:
        """Hand a lookup in a table to the emitter."""
        table = _table(node.inputs[0])
        if table is None or table.rows.size < SMALLEST_TABLE or node.attributes.get_int("axis", 0) != 0:
            self.keep(node)
        else:
            self.emitter.lookup(self.builder, table, self._take(node.inputs[1]), _name(node.outputs[0]))

    def transpose(self, node: ir.Node) -> None:
        """Drop the transposition of a constant matrix: a product with it transposes the array itself."""
        products = all(user.op_type in ("MatMul", "Gemm") and index == 1 for user, index in node.outputs[0].uses())
        if _matrix(node.outputs[0]) is None or not products:
            self.keep(node)

    def bias_gelu(self, node: ir.Node) -> None:
        """Leave GELU as it is, or compute it by tanh."""
        if not self.emitter.tanh_gelu:
            self.keep(node)
            return
        inputs = [self._take(value) for value in node.inputs]
        self.builder.node("FastGelu", inputs, _name(node.outputs[0]), domain=MICROSOFT)

    def attention(self, node: ir.Node) -> None:
        """Split ONNX Runtime's Attention into one product for queries, keys and values, and attention proper."""
        weights, bias, mask = (*node.inputs, None, None, None)[1:4]
        matrix = _matrix(weights)
        settings = {name: attribute.value for name, attribute in node.attributes.items()}
        others = set(settings) - {"num_heads", "mask_filter_value", "scale", "unidirectional", "do_rotary"}
        further = any(value is not None for value in node.inputs[4:])  # earlier keys, or a bias of the scores
        if matrix is None or others or further or settings.get("unidirectional", 0) or settings.get("do_rotary", 0):
            self.keep(node)
            return
        name = self.names.of_attention(node)
        kept: dict[str, Any] = {name: settings[name] for name in ("num_heads", "scale") if name in settings}
        added = self._take(bias)
        width, heads = matrix.shape[1] // 3, int(settings["num_heads"])
        constant = bias.const_value if bias else None
        masking = constant is not None and _masks_tokens(mask)
        if constant is not None and masking:
            # One more channel a head, 1 in each query and 0 or -MASKED in each key, masks as an addition to the scores
            # would: the fused kernel is faster without that, and then takes blocks of the scores at a time.
            kept.setdefault("scale", (width / heads) ** -0.5)
            added = self.builder.constant(f"{added}.masking", _with_channel(constant.numpy(), heads, query=1))
            matrix = _with_channel(matrix, heads)
        self._linear(node, matrix, name=name, output=name)
        query, key, value = parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        keyed = (matrix.shape[1] - width) // 2
        sizes = self.builder.constant(f"{name}.sizes", np.array([keyed, keyed, width], dtype=np.int64))
        self.builder.nodes_out("Split", [name, sizes], parts, axis=-1)
        inputs = [query, key, value, added]
        if masking:
            inputs[1] = self.builder.node("Add", [key, self._masking(_name(mask), heads, keyed)], f"{key}.masked")
        else:
            inputs.append(_name(mask))
            kept |= {name: settings[name] for name in ("mask_filter_value",) if name in settings}
        self.builder.nodes_out("MultiHeadAttention", inputs, [_name(node.outputs[0])], domain=MICROSOFT, **kept)

    def _masking(self, mask: str, heads: int, width: int) -> str:
        """Return what masks keys, once for all layers: (batch, length, width), 0 but for one channel of each head."""
        from onnx import TensorProto

        add, output = self.builder, f"{mask}.keys.{heads}.{width}"
        if add.has(output):
            return output
        last = add.constant("constant.last_axis", np.array([-1], dtype=np.int64))
        real = add.node("Cast", [mask], f"{mask}.real", to=TensorProto.BOOL)
        column = add.node("Unsqueeze", [real, last], f"{mask}.column")
        masked = np.zeros((heads, width // heads), dtype=np.float32)
        masked[:, -1] = -MASKED
        pattern = add.constant(f"{output}.masked", masked.ravel())
        return add.node("Where", [column, add.scalar(0, np.float32), pattern], output)

    def embeddings(self, node: ir.Node) -> None:
        """Write out the sum of three embeddings and its LayerNormalization, which take tables in 8 bits."""
        ids, types, words, positions, segments, gamma, beta, _, order = (*node.inputs, *[None] * 9)[:9]
        word_table, position_table = _table(words), _table(positions)
        if word_table is None or position_table is None or (types and not segments):
            self.keep(node)
            return
        add = self.builder
        self.emitter.lookup(add, word_table, _name(ids), "embeddings.words")
        if order:
            self.emitter.lookup(add, position_table, self._take(order), "embeddings.positions")
        else:
            count = add.node("Shape", [_name(ids)], "embeddings.length", start=1, end=2)
            self.emitter.leading_rows(add, position_table, count, "embeddings.positions")
        total = add.node("Add", ["embeddings.words", "embeddings.positions"], "embeddings.placed")
        if types:
            rows = add.node("Gather", [self._take(segments), _name(types)], "embeddings.segments")
            total = add.node("Add", [total, rows], "embeddings.sum")
        inputs = [total, self._take(gamma), self._take(beta)]
        epsilon = node.attributes.get_float("epsilon", 1e-12)
        add.node("LayerNormalization", inputs, _name(node.outputs[0]), axis=-1, epsilon=epsilon)

    def _linear(
        self,
        node: ir.Node,
        weights: NDArray[np.float32],
        *,
        bias: ir.Value | None = None,
        name: str | None = None,
        output: str | None = None,
    ) -> None:
        activations = node.inputs[0]
        producer = activations.producer() if activations else None
        self.emitter.linear(
            self.builder,
            Linear(
                name=name or self.names.of_product(node),
                source=self._take(activations),
                output=output or _name(node.outputs[0]),
                weights=weights,
                bias=self._take(bias) or None,
                gelu=producer is not None and producer.op_type in GELU,
                table=_table(_table_behind(node)),
                flat=node.op_type == "Gemm" or _picked(activations),
                by_token=_name(activations) in self.by_token,
            ),
        )

    def _take(self, value: ir.Value | None) -> str:
        """Bring an initialiser along when the value is one; return the name, empty for an input that is left out."""
        if value is not None and value.const_value is not None and value.is_initializer():
            self.builder.copy(value.const_value.raw)
        return _name(value)


class _Names:
    """Readable names of a graph's matrices, one for each: those of its weights, without what names the encoder.

    Args:
        weights: Names of the graph's initialisers.
    """

    def __init__(self, weights: Iterable[str]) -> None:
        self._weights = tuple(weights)
        matches = (re.match(r"((?:\w+\.)*?)embeddings\.", weight) for weight in self._weights)
        self._encoder = next((match[1] for match in matches if match), "")
        self._given: dict[str, str] = {}

    def of_product(self, node: ir.Node) -> str:
        """Name a product's matrix after its weight, or after its place where the weight is a table or nameless."""
        table, matrix = _name(_table_behind(node)), _name(node.inputs[1])
        if table or "::" in matrix:
            return self._claim(table or matrix, self._placed(_parts(node.name)) or f"{table or matrix}.decoder")
        return self._claim(matrix, re.sub(r"(\.transposed|\.weight|_weight)+$", "", matrix))

    def of_attention(self, node: ir.Node) -> str:
        """Name the matrix of queries, keys and values, which the optimizer has put together, after its place."""
        parts = _parts(_name(node.outputs[0]))
        attention = next((index for index, part in enumerate(parts, 1) if part.startswith("attention")), len(parts))
        return self._claim(_name(node.inputs[1]), ".".join([*parts[:attention], "qkv"]))

    def _placed(self, parts: Sequence[str]) -> str:
        """Return the name of a module, empty where there is none.

        The exporter leaves out modules that only hold others, so that the names of weights may have more before it.
        """
        if not parts:
            return ""
        first = f".{parts[0]}."
        holders = [weight.partition(first)[0] for weight in self._weights if first in weight][:1]
        return ".".join([*holders, *parts])

    def _claim(self, matrix: str, name: str) -> str:
        """Return the name that a matrix has, or name it so, without the encoder's name, where no other one is."""
        name = name.removeprefix(self._encoder)
        return self._given.setdefault(matrix, matrix if name in self._given.values() else name)


def _parts(path: str | None) -> list[str]:
    """Return the modules in a path such as `/encoder/layer.0/MatMul`, the exporter's name of a node or its output."""
    return (path or "").strip("/").split("/")[:-1]


def _name(value: ir.Value | None) -> str:
    """Return a value's name as nodes list it: empty for one that is left out."""
    return (value.name or "") if value is not None else ""


def _picked(value: ir.Value | None) -> bool:
    """Return whether activations are picked tokens, possibly shifted and scaled by constants."""
    producer = value.producer() if value else None
    while producer is not None and producer.op_type in ("Sub", "Mul"):
        activations, constant = producer.inputs
        if activations is None or constant is None or not constant.is_initializer():
            break
        producer = activations.producer()
    return producer is not None and producer.op_type == "Gather"


def _same_in(newer: int, node: ir.Node, opset: int) -> bool:
    """Return whether a node of one opset means the same in a newer one, as far as `EXTENDED` says."""
    from onnx import defs

    if node.domain not in ("", "ai.onnx"):
        return True
    if node.op_type == "Split":  # how many parts to make became an attribute that must be there where no sizes are
        return len(node.inputs) > 1
    versions = {defs.get_schema(node.op_type, version).since_version for version in (opset, newer)}
    return len(versions) == 1 or node.op_type in EXTENDED


def _by_token(graph: ir.Graph) -> frozenset[str]:
    """Name the activations that are known to have a row for each token of the batch, (batch, length, channels)."""
    known: set[str] = set()
    for node in graph:
        first, *others = (*node.inputs, None)
        if node.op_type == "EmbedLayerNormalization":
            proved = True
        elif node.op_type == "Gather":  # of words, not of rows that an index of another shape picks
            proved = others[0] is not None and others[0].name == IDS and _table(first) is not None
        elif node.op_type in TERMS:
            proved = any(_name(value) in known for value in node.inputs) and all(
                _name(value) in known or _vector(value) or _looked_up(value) for value in node.inputs
            )
        else:
            proved = _name(first) in known and (
                node.op_type in ROW_BY_ROW or (node.op_type == "MatMul" and _matrix(others[0]) is not None)
            )
        if proved:
            known.add(_name(node.outputs[0]))
    return frozenset(known)


def _masks_tokens(mask: ir.Value | None) -> bool:
    """Return whether a mask is the graph's own, (batch, length), as it is or cast."""
    producer = mask.producer() if mask else None
    if producer is not None and producer.op_type == "Cast":
        mask = producer.inputs[0]
    return mask is not None and mask.is_graph_input() and mask.name == MASK


def _with_channel(values: NDArray[np.float32], heads: int, query: float = 0) -> NDArray[np.float32]:
    """Give each head one more channel of queries and keys: 0, or in queries another number.

    Args:
        values: Weights or a bias of queries, keys and values, side by side on the last axis.
        heads: How many heads each of the three has.
        query: What queries get.
    """
    queries, keys, rest = np.split(values, 3, axis=-1)
    widened = []
    for part, number in ((queries, query), (keys, 0)):
        by_head = part.reshape(*part.shape[:-1], heads, -1)
        channel = np.full((*by_head.shape[:-1], 1), number, dtype=np.float32)
        widened.append(np.concatenate([by_head, channel], axis=-1).reshape(*part.shape[:-1], -1))
    return np.concatenate([*widened, rest], axis=-1)


def _vector(value: ir.Value | None) -> bool:
    """Return whether a value is a constant that broadcasts to every row."""
    return value is not None and value.const_value is not None and len(value.const_value.shape) <= 1


def _looked_up(value: ir.Value | None) -> bool:
    """Return whether a value is rows of a table, such as those of positions, the same for each text or not."""
    producer = value.producer() if value else None
    return producer is not None and producer.op_type == "Gather" and _table(producer.inputs[0]) is not None


def _transposed(value: ir.Value | None) -> ir.Value | None:
    """Return the initialiser of which a value is the transpose; None for any other value."""
    producer = value.producer() if value else None
    if producer is None or producer.op_type != "Transpose":
        return None
    [source] = producer.inputs
    return source if source is not None and source.is_initializer() else None


def _matrix(value: ir.Value | None) -> NDArray[np.float32] | None:
    """Read a constant float32 matrix worth quantizing, transposed where a node transposes it."""
    source = _transposed(value)
    if source is not None:
        matrix = _matrix(source)
        return None if matrix is None else matrix.T
    tensor = value.const_value if value is not None and value.is_initializer() else None
    if tensor is None or tensor.dtype.name != "FLOAT" or len(tensor.shape) != 2:  # noqa: PLR2004 — a matrix
        return None
    return tensor.numpy() if min(tensor.shape.numpy()) >= NARROWEST else None


def _table(value: ir.Value | None) -> Table | None:
    """Read an embedding table; None for a value that is none."""
    rows = _matrix(value) if value is not None and value.is_initializer() else None
    return None if rows is None else Table(name=_name(value), rows=rows, tied=_tied(value))


def _tied(value: ir.Value | None) -> bool:
    """Return whether a product multiplies by the transpose of a table."""
    if value is None:
        return False
    users = [user for user, _ in value.uses()]
    users += [user for node in users if node.op_type == "Transpose" for user, _ in node.outputs[0].uses()]
    return any(node.op_type in ("MatMul", "Gemm") and _table_behind(node) is value for node in users)


def _table_behind(node: ir.Node) -> ir.Value | None:
    """Return the table whose transpose a product multiplies by; None for another product."""
    matrix = node.inputs[1]
    source = _transposed(matrix)
    if source is None and node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0:
        source = matrix if matrix is not None and matrix.is_initializer() else None
    looked_up = source and any(user.op_type in ("Gather", "EmbedLayerNormalization") for user, _ in source.uses())
    return source if looked_up else None
