"""Changing what goes into layers, and their weights and biases with it, so that a graph computes what it did."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeGuard

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bertport.quantize.graph.rewrite import Linear

    Array = NDArray[np.float32]

__all__ = ["change_inputs", "changeable"]

By = TypeVar("By")
"""What an activation is changed by."""


def changeable(model: onnx.ModelProto, layers: Iterable[Linear]) -> tuple[Linear, ...]:
    """Return the layers whose inputs may be changed.

    Such a layer is a MatMul whose matrix, and a bias behind it, nothing else uses. An activation that any other layer
    takes as well is left out as a whole.
    """
    from onnx_ir import convenience, serde

    layers = tuple(layers)
    values = convenience.create_value_mapping(serde.deserialize_model(model).graph)
    refused = {layer.source for layer in layers if _own_parts(layer, values) is None}
    return tuple(layer for layer in layers if layer.source not in refused)


def change_inputs(  # noqa: PLR0913 — the graph, what is chosen, and the three things that are done with it
    model: onnx.ModelProto,
    layers: Iterable[Linear],
    chosen: Mapping[str, By],
    *,
    insert: Callable[[ir.Graph, ir.Value, By, ir.Node], ir.Value],
    matrix: Callable[[Linear, By], Array],
    bias: Callable[[Linear, By, Array], Array] | None = None,
) -> onnx.ModelProto:
    """Return the graph with the inputs of layers changed, and what they are multiplied by.

    Args:
        model: The serving graph of standard operators, its weights in memory; it is not changed.
        layers: As `changeable` returns them, in the order in which they run.
        chosen: What is done, by name of the activation.
        insert: Inserts the nodes that change an activation before a node, and returns their result; once for all
            layers that take it.
        matrix: Makes a layer's matrix for the changed activation. Shape: (inputs, outputs)
        bias: Makes a layer's bias of the one it has. Shape: (outputs,)
    """
    from onnx_ir import convenience, serde

    changed = serde.deserialize_model(model)
    values = convenience.create_value_mapping(changed.graph)
    inserted: dict[str, ir.Value] = {}
    for layer in layers:
        parts, by = _own_parts(layer, values), chosen.get(layer.source)
        if parts is None or by is None:
            continue
        product, weights, added = parts
        weights.const_value = _stored_later(weights, partial(matrix, layer, by))
        if bias is not None:
            added.const_value = _stored_later(added, partial(bias, layer, by, np.asarray(added.const_value)))
        if layer.source not in inserted:
            inserted[layer.source] = insert(changed.graph, values[layer.source], by, product)
        product.replace_input_with(0, inserted[layer.source])
    return serde.serialize_model(changed)


def _stored_later(value: ir.Value, make: Callable[[], Array]) -> ir.LazyTensor:
    """Return other numbers for an initialiser; they are made when the graph is written, one array after the other."""
    import onnx_ir as ir

    shape = ir.Shape(value.shape or ())
    return ir.LazyTensor(lambda: ir.tensor(make()), dtype=ir.DataType.FLOAT, shape=shape, name=value.name)


def _own_parts(layer: Linear, values: Mapping[str, ir.Value]) -> tuple[ir.Node, ir.Value, ir.Value] | None:
    """Return a layer's MatMul, its matrix and its bias; None where there are none of its own."""
    product = values[layer.output].producer()
    behind = values[layer.output].consumers()
    if product is None or product.op_type != "MatMul" or layer.table or [node.op_type for node in behind] != ["Add"]:
        return None
    matrix = product.inputs[1]
    biases = [value for value in behind[0].inputs if _used_once(value)]
    return (product, matrix, biases[0]) if matrix is not None and _used_once(matrix) and len(biases) == 1 else None


def _used_once(value: ir.Value | None) -> TypeGuard[ir.Value]:
    """Return whether a value is an initialiser that one node uses alone."""
    return value is not None and value.is_initializer() and len(value.uses()) == 1
