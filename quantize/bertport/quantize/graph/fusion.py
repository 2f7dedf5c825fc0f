"""The graph that quantization starts from: the fp32 serving graph with its layers fused by ONNX Runtime's optimizer."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from bertport.measure.onnx_files import read_model
from bertport.runtime.errors import BundleError, MissingDependencyError
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from bertport.runtime.bundle.manifest import Architecture

__all__ = ["fuse", "load_plain", "sort_nodes"]

LEAST_OPSET = 17
"""The first with LayerNormalization as one operator, which every recipe writes or keeps in float32."""
WIDENED = frozenset({"Shape", "Pow", "Where", "Identity", "LessOrEqual", "GreaterOrEqual"})
"""Operators that opsets 15 to 17 changed without changing what they compute of what opset 14 allows."""


def fuse(path: Path, architecture: Architecture) -> onnx.ModelProto:
    """Fuse embeddings, attention and GELU into ONNX Runtime's operators.

    What is not recognised is left as it was, and is quantized matrix by matrix all the same.

    Args:
        path: The fp32 serving graph; its external data lies beside it.
        architecture: Of the bundle.

    Returns:
        The graph with all of its weights in memory.

    Raises:
        MissingDependencyError: without ONNX Runtime or what its tools import.
    """
    try:
        onnxruntime()
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_model
    except ImportError as error:
        what = "quantize"
        raise MissingDependencyError(what, (error.name or "onnxruntime").partition(".")[0], "cpu,quantize") from error
    with _quiet():
        # opt_level 0: none of the session's own rewriting, which would depend on the machine.
        fused = optimize_model(
            load_plain(path),
            model_type="bert",
            num_heads=architecture.attention_heads,
            hidden_size=architecture.hidden_size,
            opt_level=0,
            optimization_options=FusionOptions("bert"),
        )
    model: onnx.ModelProto = fused.model
    _split_skips(model)
    return model


def _split_skips(model: onnx.ModelProto) -> None:
    """Put additions and LayerNormalization in the place of SkipLayerNormalization, in place.

    The fused kernel is slower on CPUs than what it fuses: 0.26 ms and 0.10 ms on 128 rows of 768 with two cores and
    AVX2 in ONNX Runtime 1.32, a tenth of a layer in 8 bits. The optimizer needs it to find attention.
    """
    from onnx import helper

    nodes = []
    for node in model.graph.node:
        if node.op_type != "SkipLayerNormalization":
            nodes.append(node)
            continue
        first, skip, gamma, beta, *bias = node.input
        [output] = node.output
        for number, added in enumerate([*bias, skip]):
            total = f"{output}.sum{number}"
            nodes.append(helper.make_node("Add", [first, added], [total], total))
            first = total
        epsilon = helper.get_node_attr_value(node, "epsilon")
        nodes.append(
            helper.make_node("LayerNormalization", [first, gamma, beta], [output], node.name, axis=-1, epsilon=epsilon)
        )
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
        what = "quantize"
        raise MissingDependencyError(what, "onnx", "cpu,quantize") from error
    _widen(model)
    _without_aliases(model)
    _raise_opset(model)
    return model


def _without_aliases(model: onnx.ModelProto) -> None:
    """Let every node that takes a stored tensor under a second name take it under its own, in place.

    PyTorch's exporter stores equal tensors once, with an Identity for each further one: a matrix behind it would not
    be found, and the layer left in float32 beside the rounded copy.
    """
    stored = {tensor.name: tensor.name for tensor in model.graph.initializer}
    outputs = {each.name for each in model.graph.output}
    kept = []
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in stored and node.output[0] not in outputs:
            stored[node.output[0]] = stored[node.input[0]]
            continue
        node.input[:] = [stored.get(name, name) for name in node.input]
        kept.append(node)
    if len(kept) < len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _raise_opset(model: onnx.ModelProto) -> None:
    """Bring a graph to `LEAST_OPSET`, its LayerNormalizations each one operator, in place; newer ones stay as they are.

    Nothing that BERT is made of changes its meaning between opsets 14 and 17: operators only gained types, and Shape
    two attributes that may be left out. Any other operator that was changed in between is refused.
    """
    from onnx import defs, helper

    [standard] = [each for each in model.opset_import if each.domain in ("", "ai.onnx")]
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
    onnxruntime()
    from onnxruntime.transformers.fusion_layernorm import FusionLayerNormalization
    from onnxruntime.transformers.onnx_model import OnnxModel

    with _quiet():
        fused = OnnxModel(model)
        FusionLayerNormalization(fused).apply()
        fused.prune_graph()
    sort_nodes(model)


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put a graph's nodes behind those whose outputs they take, in place, and otherwise leave their order."""
    nodes = list(model.graph.node)
    makers = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    order: dict[int, None] = {}
    for index in range(len(nodes)):
        waiting = [index]
        while waiting:
            needed = [makers[name] for name in nodes[waiting[-1]].input if name in makers]
            missing = [each for each in needed if each not in order]
            if missing:
                waiting += missing
            else:
                order[waiting.pop()] = None
    del model.graph.node[:]
    model.graph.node.extend(nodes[index] for index in order)


def _widen(model: onnx.ModelProto) -> None:
    """Turn weights that are stored in 16 bits, with a Cast behind each, into float32 ones, in place."""
    from onnx import TensorProto, helper, numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    widened, left, narrow = [], [], set()
    for node in model.graph.node:
        wide = node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT
        tensor = stored.get(node.input[0]) if wide else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT16:
            left.append(node)
            continue
        narrow.add(tensor.name)
        widened.append(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), node.output[0]))
    if widened:
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in narrow]
        del model.graph.initializer[:], model.graph.node[:]
        model.graph.initializer.extend([*kept, *widened])
        model.graph.node.extend(left)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the optimizer, which warns that bertport did not come from PyTorch."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
