"""Graph pass: decode only the positions that are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.runtime.heads import HIDDEN_STATES, POSITIONS

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["gather_positions"]


def gather_positions(model: ir.Model, logits: str) -> tuple[ir.Model, bool]:
    """Gather rows of the hidden state before a head that decodes each token, which then runs on those rows alone.

    Adds the input `masked_positions`, int64 [n], flat indices into batch x sequence, n possibly 0, and turns the
    head's output from [batch, sequence, vocab] into [n, vocab]. The head's operators work along the last axis and so
    do not mind the lost one.

    Matches the nodes that read the hidden state and lead to `logits`. Declines where there is no output `logits` or no
    such node.
    """
    import numpy as np
    import onnx_ir as ir

    graph = model.graph
    outputs = {value.name: value for value in graph.outputs}
    if logits not in outputs:
        return model, False
    hidden, decoder = outputs[HIDDEN_STATES], _nodes_behind(outputs[logits])
    readers = [node for node in graph if node in decoder and hidden in node.inputs]
    if not readers:
        return model, False

    positions = ir.Value(name=POSITIONS, shape=ir.Shape(["masked"]), type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.append(positions)
    width, vocabulary = _last(hidden), _last(outputs[logits])
    flat_shape = ir.Value(name=f"{POSITIONS}.flat_shape")
    flat_shape.const_value = ir.tensor(np.asarray([-1, width], dtype=np.int64), name=flat_shape.name)
    graph.initializers.add(flat_shape)
    rows, gathered = (ir.Value(name=f"{POSITIONS}.{name}") for name in ("rows", "hidden_state"))
    nodes = (
        ir.node("Reshape", [hidden, flat_shape], outputs=[rows], name=f"/{rows.name}"),
        ir.node("Gather", [rows, positions], {"axis": 0}, outputs=[gathered], name=f"/{gathered.name}"),
    )
    graph.insert_before(readers[0], nodes)
    for node in readers:
        for index, value in enumerate(node.inputs):
            if value is hidden:
                node.replace_input_with(index, gathered)
    # Intermediate shapes, where the exporter recorded any, no longer hold.
    for value in (value for node in graph for value in node.outputs if not value.is_graph_output()):
        value.shape = value.type = None
    outputs[logits].shape = ir.Shape(["masked", vocabulary])
    return model, True


def _nodes_behind(value: ir.Value) -> set[ir.Node]:
    """Return the nodes that a value is computed by, its own included."""
    behind: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node not in behind:
            behind.add(node)
            waiting += [operand for operand in node.inputs if operand is not None]
    return behind


def _last(value: ir.Value) -> int:
    """Return the size of a value's last axis."""
    size = value.shape[-1] if value.shape is not None else None
    if not isinstance(size, int):
        raise TypeError(f"the last axis of {value.name} has no fixed size")  # the exporter's own, never a user's
    return size
