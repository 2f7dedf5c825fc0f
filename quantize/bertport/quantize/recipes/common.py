"""Linear layers left in float32: what the emitters have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.quantize.graph.builder import GraphBuilder
    from bertport.quantize.graph.rewrite import Linear

__all__ = ["finish", "half_stored", "in_float"]


def in_float(builder: GraphBuilder, linear: Linear) -> None:
    """Compute in float32 from weights stored in 16 bits."""
    finish(builder, "MatMul", [linear.source, half_stored(builder, linear.name, linear.weights)], linear)


def half_stored(builder: GraphBuilder, name: str, weights: NDArray[np.float32]) -> str:
    """Store weights in 16 bits, which ONNX Runtime widens once, when it loads the graph; name them in float32.

    Weights too large for 16 bits are stored as they are.
    """
    from onnx import TensorProto

    wide = f"{name}.float"
    if np.abs(weights).max(initial=0) >= np.finfo(np.float16).max:
        return builder.constant(wide, weights)
    half = builder.constant(f"{name}.half", weights.astype(np.float16))
    return builder.node("Cast", [half], wide, to=TensorProto.FLOAT)


def finish(builder: GraphBuilder, operator: str, inputs: list[str], linear: Linear) -> None:
    """Add the last operator of a linear layer, and its bias where it has one."""
    if linear.bias is None:
        builder.node(operator, inputs, linear.output)
        return
    unbiased = builder.node(operator, inputs, f"{linear.output}.unbiased")
    builder.node("Add", [unbiased, linear.bias], linear.output)
