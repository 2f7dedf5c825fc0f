"""The graph that quantization starts from: the fp32 serving graph with its layers fused by ONNX Runtime's optimizer."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING, Any

from bertport.measure.onnx_files import read_model
from bertport.quantize.graph.builder import LEAST_OPSET
from bertport.runtime.errors import BundleError, MissingDependencyError
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx
    import onnx_ir as ir

    from bertport.runtime.bundle.manifest import Architecture

__all__ = ["fuse", "load_plain", "sort_nodes", "without_weights", "write_nodes"]

WIDENED = frozenset({"Shape", "Pow", "Where", "Identity", "LessOrEqual", "GreaterOrEqual"})
"""Operators that opsets 15 to 17 changed, and that compute the same of every input that opset 14 allows."""


def fuse(model: onnx.ModelProto, architecture: Architecture) -> onnx.ModelProto:
    """Fuse embeddings, attention and GELU into ONNX Runtime's operators.

    What is not recognised is left as it was, and is quantized matrix by matrix all the same.

    Args:
        model: The fp32 serving graph as `load_plain` returns it; not to be used afterwards.
        architecture: Dimensions of the bundle's model.

    Returns:
        The graph with all of its weights in memory.

    Raises:
        MissingDependencyError: without ONNX Runtime or what its tools import.
    """
    try:
        onnxruntime()
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import MODEL_TYPES
    except ImportError as error:
        raise MissingDependencyError(
            "quantize", (error.name or "onnxruntime").partition(".")[0], "cpu,quantize"
        ) from error
    optimizer_class, *_ = MODEL_TYPES["bert"]
    options = FusionOptions("bert")
    # It joins queries, keys and values of each layer: what the layers of an ALBERT share would be stored once for each.
    options.enable_attention = not _shares_matrices(model) and _scales_by_width(model, architecture)
    # Without it attention is given the number of real tokens instead, which is wrong for padding on the left and holes.
    options.use_raw_attention_mask()
    with _quiet():
        # Its fusions alone, and none of the session's own rewriting, which would depend on the machine.
        fused = optimizer_class(model, architecture.attention_heads, architecture.hidden_size)
        fused.infer_runtime_shape = _inferring_without_weights(fused)
        fused.optimize(options)
        fused.topological_sort()
    made: onnx.ModelProto = fused.model
    made.producer_name, made.producer_version = "onnxruntime.transformers", onnxruntime().__version__
    _split_skips(made)
    return made


def _inferring_without_weights(optimizer: Any) -> Callable[..., Any]:  # noqa: ANN401 — ONNX Runtime is not typed
    """Return an optimizer's shape inference that sees no weights.

    The inference copies the model each time, before five of the fusions, and a BERT-base has 440 MB.
    """
    infer = optimizer.infer_runtime_shape

    def inferred(*arguments: object, **options: object) -> object:
        whole, optimizer.model = optimizer.model, without_weights(optimizer.model)
        try:
            return infer(*arguments, **options)
        finally:
            optimizer.model = whole

    return inferred


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph in which each matrix is an input of its shape: no shape depends on its values."""
    import onnx
    from onnx import helper

    graph = onnx.GraphProto(name=model.graph.name)
    for field in ("node", "input", "output", "value_info"):
        getattr(graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            graph.initializer.append(tensor)
    return onnx.ModelProto(graph=graph, ir_version=model.ir_version, opset_import=model.opset_import)


def _shares_matrices(model: onnx.ModelProto) -> bool:
    """Return whether several products multiply by one stored matrix."""
    stored = {tensor.name for tensor in model.graph.initializer}
    taken = [node.input[1] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in stored]
    return len(set(taken)) < len(taken)


def _scales_by_width(model: onnx.ModelProto, architecture: Architecture) -> bool:
    """Return whether attention divides by the root of a head's width, which the optimizer assumes without looking."""
    import onnx_ir as ir

    root = (architecture.hidden_size / architecture.attention_heads) ** 0.5
    graph = ir.serde.deserialize_model(model).graph
    masked = [node.inputs[0].producer() for node in graph if node.op_type == "Softmax" and node.inputs[0]]
    terms = [value.producer() for node in masked if node for value in node.inputs if value]
    return not any(_scales_product_otherwise(node, root) for node in terms if node)


def _scales_product_otherwise(node: ir.Node, root: float) -> bool:
    """Return whether a node divides a product of matrices, and not a mask, by another number than the root."""
    import onnx_ir as ir

    if node.op_type not in {"Div", "Mul"}:
        return False
    scaled, by = node.inputs
    product = scaled.producer() if scaled else None
    factor = ir.convenience.get_const_tensor(by) if by else None
    if product is None or product.op_type != "MatMul" or factor is None or factor.size != 1:
        return False
    expected = root if node.op_type == "Div" else 1 / root
    return not math.isclose(float(factor.numpy().item()), expected, rel_tol=1e-3)


def _split_skips(model: onnx.ModelProto) -> None:
    """Put additions and LayerNormalization in the place of SkipLayerNormalization, in place.

    The fused kernel is slower on CPUs than what it fuses: 0.26 ms and 0.10 ms on 128 rows of 768 with two cores and
    AVX2 in ONNX Runtime 1.32, a tenth of a layer in 8 bits. The optimizer needs it to find attention.
    """
    import onnx_ir as ir

    graph = ir.serde.deserialize_model(model).graph
    for node in graph:
        if node.op_type != "SkipLayerNormalization":
            continue
        total, skip, gamma, beta, *bias = node.inputs
        output, *others = (value for value in node.outputs if value.name)
        parts = []
        for number, added in enumerate([*bias, skip]):
            name = f"{output.name}.sum{number}"
            parts.append(ir.node("Add", [total, added], outputs=[ir.Value(name=name)], name=name))
            [total] = parts[-1].outputs
        attributes = {"axis": -1, "epsilon": node.attributes["epsilon"].as_float()}
        parts.append(ir.node("LayerNormalization", [total, gamma, beta], attributes, name=node.name))
        # Where LayerNormalization comes before a layer and not after it, the sum is used too: the last output.
        made = [parts[-1].outputs[0], *(parts[-2].outputs[0] for _ in others)]
        ir.convenience.replace_nodes_and_values(graph, node, [node], parts, [output, *others], made)
    write_nodes(model, graph)


def write_nodes(model: onnx.ModelProto, graph: ir.Graph) -> None:
    """Replace the nodes of a model by those of a graph that was made from it; its weights stay and are not copied."""
    from onnx_ir import serde

    nodes = [serde.serialize_node(node) for node in graph]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def load_plain(path: Path) -> onnx.ModelProto:
    """Read the fp32 serving graph with its weights in memory, in an opset that every recipe can write.

    Raises:
        MissingDependencyError: without the onnx package.
        BundleError: for a graph in an older opset with an operator that means something else in the newer one.
    """
    try:
        model = read_model(path)
    except ImportError as error:
        raise MissingDependencyError("quantize", "onnx", "cpu,quantize") from error
    _widen(model)
    _remove_aliases(model)
    _raise_opset(model)
    _join_norms(model)
    return model


def _remove_aliases(model: onnx.ModelProto) -> None:
    """Let every node that takes a stored tensor under a second name take it under its own, in place.

    PyTorch's exporter stores equal tensors once, with an Identity for each further one: a matrix behind it would not
    be found, and the layer left in float32 beside the rounded copy.
    """
    import onnx_ir as ir

    graph = ir.serde.deserialize_model(model).graph
    for node in graph:
        if node.op_type != "Identity" or node.outputs[0].is_graph_output():
            continue
        [stored] = node.inputs
        if stored is not None and stored.is_initializer():
            ir.convenience.replace_all_uses_with(node.outputs[0], stored)
            graph.remove(node)
    if len(graph) < len(model.graph.node):
        write_nodes(model, graph)


def _raise_opset(model: onnx.ModelProto) -> None:
    """Bring a graph to `LEAST_OPSET`, in place; newer ones stay as they are.

    Nothing that BERT is made of changes its meaning between opsets 14 and 17: operators only gained types, and Shape
    two attributes that may be left out. Any other operator that was changed in between is refused.
    """
    from onnx import defs, helper

    [standard] = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if standard.version >= LEAST_OPSET:
        return
    for operator in sorted({node.op_type for node in model.graph.node} - WIDENED):
        newest = defs.get_schema(operator, LEAST_OPSET)
        if newest.since_version > standard.version:
            raise BundleError(
                f"the graph is in opset {standard.version}, and its operator {operator} means something else in opset "
                f"{newest.since_version}: export again with --opset {LEAST_OPSET}, then quantize"
            )
    standard.version = LEAST_OPSET
    model.ir_version = max(model.ir_version, helper.find_min_ir_version_for([standard]))


def _join_norms(model: onnx.ModelProto) -> None:
    """Make each LayerNormalization that is written in parts one operator, in place.

    Opsets before `LEAST_OPSET` have no other way, and the first DeBERTa computes its own in every opset: its squares
    would leave float16's range.
    """
    if not any(node.op_type == "ReduceMean" for node in model.graph.node):
        return
    onnxruntime()
    from onnxruntime.transformers.fusion_layernorm import FusionLayerNormalization
    from onnxruntime.transformers.onnx_model import OnnxModel

    with _quiet():
        fused = OnnxModel(model)
        FusionLayerNormalization(fused).apply()
        fused.prune_graph()
    sort_nodes(model)


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put a graph's nodes behind those whose outputs they take, in place."""
    from onnx_ir import serde

    graph = serde.deserialize_model(model).graph
    graph.sort()
    write_nodes(model, graph)


def _widen(model: onnx.ModelProto) -> None:
    """Turn weights that are stored in 16 bits, with a Cast behind each, into float32 ones, in place."""
    import numpy as np
    import onnx_ir as ir

    graph = ir.serde.deserialize_model(model).graph
    stored = {}
    for node in graph:
        if node.op_type != "Cast" or node.attributes["to"].as_int() != ir.DataType.FLOAT:
            continue
        [narrow] = node.inputs
        if narrow is not None and narrow.is_initializer() and narrow.dtype == ir.DataType.FLOAT16:
            stored[node.outputs[0].name] = narrow
            graph.remove(node)
    if not stored:
        return
    write_nodes(model, graph)
    tensors = model.graph.initializer
    for name, narrow in stored.items():
        wide = ir.tensor(np.asarray(narrow.const_value, dtype=np.float32), name=name)
        ir.serde.serialize_tensor_into(tensors.add(), wide)
    gone = {narrow.name for narrow in stored.values()}
    for index in reversed(range(len(tensors))):
        if tensors[index].name in gone:
            del tensors[index]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the optimizer, which warns that bertport did not come from PyTorch."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
