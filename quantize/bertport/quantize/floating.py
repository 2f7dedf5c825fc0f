"""Linear layers left in float32: what the emitters have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bertport.quantize.builder import GraphBuilder
    from bertport.quantize.rewrite import Linear

__all__ = ["finish", "in_float"]


def in_float(builder: GraphBuilder, linear: Linear) -> None:
    """Compute in float32 from weights stored in 16 bits, which ONNX Runtime widens once, when it loads the graph."""
    from onnx import TensorProto

    name = f"{linear.name}.float"
    if np.abs(linear.weights).max(initial=0) < np.finfo(np.float16).max:
        half = builder.constant(f"{linear.name}.half", linear.weights.astype(np.float16))
        builder.node("Cast", [half], name, to=TensorProto.FLOAT)
    else:
        builder.constant(name, linear.weights)
    finish(builder, "MatMul", [linear.source, name], linear)


def finish(builder: GraphBuilder, operator: str, inputs: list[str], linear: Linear) -> None:
    """Add the last operator of a linear layer, and its bias where it has one."""
    if linear.bias is None:
        builder.node(operator, inputs, linear.output)
        return
    unbiased = builder.node(operator, inputs, f"{linear.output}.unbiased")
    builder.node("Add", [unbiased, linear.bias], linear.output)
