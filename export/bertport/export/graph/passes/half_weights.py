"""Graph pass: store matrices in 16 bits and compute in 32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["half_weights"]


def half_weights(model: ir.Model) -> tuple[ir.Model, bool]:
    """Turn every float32 matrix among the initialisers into float16 followed by a Cast to float32.

    Halves the file; ONNX Runtime folds the Casts when it loads the graph, so memory and speed are those of
    float32. Vectors (biases, LayerNorm) are small and stay as they are.

    Matches float32 initialisers of rank 2. Declines where there are none.
    """
    import numpy as np
    import onnx_ir as ir

    graph = model.graph
    before = list(graph.initializers.values())
    casts, stored = [], []
    graph.initializers.clear()
    for value in before:
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:  # noqa: PLR2004 — a matrix
            stored.append(value)
            continue
        narrow = ir.Value(name=f"{value.name}.float16")
        narrow.const_value = ir.tensor(tensor.numpy().astype(np.float16), name=narrow.name)
        stored.append(narrow)
        wide = ir.Value(name=value.name)
        cast = ir.node("Cast", [narrow], {"to": ir.DataType.FLOAT}, outputs=[wide], name=f"/{value.name}/Cast")
        value.replace_all_uses_with(wide)
        casts.append(cast)
    for value in stored:
        graph.initializers.add(value)
    if casts:
        graph.insert_before(graph[0], casts)
    return model, bool(casts)
