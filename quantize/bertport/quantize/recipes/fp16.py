"""The fp16 variant: the serving graph of standard operators in 16 bits, for CUDA and TensorRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.graph.fusion import sort_nodes, without_weights, write_nodes
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bertport.quantize.recipes.source import GraphSource

__all__ = ["LARGEST_MASK", "convert_to_fp16", "soften"]

LARGEST_MASK = 1e4
"""Magnitude that replaces masks' -3.4e38: in float16 that would be -inf, and a row of masks NaN. exp(-1e4) is 0."""
IN_FLOAT32 = ["LayerNormalization", "Softmax"]
"""Operators kept in float32: their sums of squares and exponentials leave float16's range on outlier channels."""
ANGLES = frozenset({"Cos", "Sin"})
"""Operators whose input is the product of a position and a frequency, in rotary embeddings."""
NARROWED = "_cast_to_fp16_node"
"""The end of the converter's names of the Casts behind nodes in float32."""
INTEGERS = frozenset({"INT32", "INT64"})
"""Types that positions, and the buckets of relative positions, are cast to."""
SIZES = frozenset({"Shape", "Size"})
"""Operators whose output does not depend on the values of their input."""


def convert_to_fp16(source: GraphSource) -> onnx.ModelProto:
    """Convert the plain serving graph; inputs and outputs stay as they are, so every caller can use it.

    Raises:
        UsageError: for weights that float16 cannot hold.
    """
    import copy
    import warnings

    onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = copy.deepcopy(source.plain)
    soften(model)
    _infer_types(model)
    with warnings.catch_warnings():
        # It warns of every constant that float16 rounds to its smallest number; LayerNormalization's stays float32.
        warnings.simplefilter("ignore")
        converted: onnx.ModelProto = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=IN_FLOAT32,
            node_block_list=_about_positions(model),
            disable_shape_infer=True,
        )
    sort_nodes(converted)  # it puts every Cast that it adds at the end
    _join_float32(converted)
    return converted


def _infer_types(model: onnx.ModelProto) -> None:
    """Write the types of all values into a graph, in place.

    The converter's own inference writes the whole model as one message, of which protobuf takes 2 GB.
    """
    from onnx.shape_inference import infer_shapes

    inferred = infer_shapes(without_weights(model))
    del model.graph.value_info[:]
    model.graph.value_info.extend(inferred.graph.value_info)


def _about_positions(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that compute positions: what ends in an integer or in an angle.

    float16 tells integers apart up to 2048 alone, and rounds the angle of position 1000 by half a radian; the bucket of
    a relative position would be another one.
    """
    from onnx_ir import DataType, serde

    graph = serde.deserialize_model(model).graph
    waiting = [
        node
        for node in graph
        if node.op_type in ANGLES
        or (node.op_type == "Cast" and DataType(node.attributes["to"].as_int()).name in INTEGERS)
    ]
    names: dict[str, None] = {}
    while waiting:
        node = waiting.pop()
        if node.name and node.name not in names and node.op_type not in SIZES:
            names[node.name] = None
            waiting += [producer for value in node.inputs if value is not None and (producer := value.producer())]
    return list(names)


def _join_float32(model: onnx.ModelProto) -> None:
    """Let a node in float32 take what another one in float32 gives, in place: the converter rounds it in between."""
    from onnx_ir import DataType, convenience, serde

    graph = serde.deserialize_model(model).graph
    widened = [node for node in graph if _casts(node, DataType.FLOAT)]
    for node in widened:
        [rounded] = node.inputs
        narrowed = rounded.producer() if rounded else None
        if narrowed is not None and _casts(narrowed, DataType.FLOAT16) and (narrowed.name or "").endswith(NARROWED):
            [exact] = narrowed.inputs
            if exact is not None and not node.outputs[0].is_graph_output():
                convenience.replace_all_uses_with(node.outputs[0], exact)
                graph.remove(node)
                if not narrowed.outputs[0].uses():
                    graph.remove(narrowed)
    write_nodes(model, graph)


def _casts(node: ir.Node, to: ir.DataType) -> bool:
    """Return whether a node is a Cast to a type."""
    return node.op_type == "Cast" and node.attributes["to"].as_int() == to


def soften(model: onnx.ModelProto) -> None:
    """Bring constants beyond float16 within `LARGEST_MASK`, in place; refuse weights that large.

    Raises:
        UsageError: for weights that float16 cannot hold.
    """
    from onnx import numpy_helper

    from bertport.runtime.errors import UsageError

    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1 and np.abs(values).max() > np.finfo(np.float16).max:
            raise UsageError(
                f"fp16 cannot hold the weights {tensor.name} (up to {np.abs(values).max():.3g}): use another recipe"
            )
        if values.dtype == np.float32 and values.size == 1:
            tensor.CopyFrom(numpy_helper.from_array(_within(values), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                values = numpy_helper.to_array(attribute.t)
                if values.dtype == np.float32:
                    attribute.t.CopyFrom(numpy_helper.from_array(_within(values), attribute.t.name))


def _within(values: NDArray[np.float32]) -> NDArray[np.float32]:
    large = np.abs(values) > np.finfo(np.float16).max
    return np.where(large, np.sign(values) * np.float32(LARGEST_MASK), values).astype(np.float32)
