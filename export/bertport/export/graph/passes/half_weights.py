"""Store matrices in 16 bits and compute in 32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["half_weights"]


def half_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Turn every float32 matrix among the initialisers into float16 followed by a Cast to float32.

    Halves the file; ONNX Runtime folds the Casts when it loads the graph, so memory and speed are those of
    float32. Vectors (biases, LayerNorm) are small and stay as they are.

    Matches float32 initialisers of rank 2. Declines where there are none.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:  # noqa: PLR2004 — a matrix
            continue
        name = tensor.name
        stored = f"{name}.float16"
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"/{name}/Cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    return model, bool(casts)
