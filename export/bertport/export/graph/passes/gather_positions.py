"""Decode only the positions that are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.export.graph.passes.graph import consumers, leading_to
from bertport.runtime.heads import HIDDEN_STATES, POSITIONS

if TYPE_CHECKING:
    import onnx

__all__ = ["gather_positions"]


def gather_positions(
    model: onnx.ModelProto, logits: str, *, hidden: str = HIDDEN_STATES
) -> tuple[onnx.ModelProto, bool]:
    """Gather rows of the hidden state before a head that decodes each token, which then runs on those rows alone.

    Adds the input `masked_positions`, int64 [n], flat indices into batch x sequence, n possibly 0, and turns the
    head's output from [batch, sequence, vocab] into [n, vocab]. The head's operators work along the last axis and so
    do not mind the lost one.

    Matches the nodes that read `hidden` and lead to `logits`. Declines where there is no output `logits` or no
    such node.
    """
    from onnx import TensorProto, helper, numpy_helper

    outputs = {output.name: output for output in model.graph.output}
    if logits not in outputs:
        return model, False
    decoder = leading_to(model, [logits])
    heads = [node for node in consumers(model, hidden) if decoder.intersection(node.output)]
    if not heads:
        return model, False

    import numpy as np

    width = outputs[hidden].type.tensor_type.shape.dim[2].dim_value
    flat_shape = numpy_helper.from_array(np.asarray([-1, width], dtype=np.int64), f"{POSITIONS}.flat_shape")
    rows, gathered = f"{POSITIONS}.rows", f"{POSITIONS}.hidden_state"
    index = min(list(model.graph.node).index(node) for node in heads)
    flatten = helper.make_node("Reshape", [hidden, flat_shape.name], [rows], name=f"/{rows}")
    gather = helper.make_node("Gather", [rows, POSITIONS], [gathered], name=f"/{gathered}", axis=0)
    for node in heads:
        node.input[:] = [gathered if each == hidden else each for each in node.input]
    model.graph.node.insert(index, gather)
    model.graph.node.insert(index, flatten)
    model.graph.initializer.append(flat_shape)
    model.graph.input.append(helper.make_tensor_value_info(POSITIONS, TensorProto.INT64, ["masked"]))
    vocabulary = outputs[logits].type.tensor_type.shape.dim[2].dim_value
    outputs[logits].CopyFrom(helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["masked", vocabulary]))
    # Intermediate shapes, where the exporter recorded any, no longer hold.
    del model.graph.value_info[:]
    return model, True
