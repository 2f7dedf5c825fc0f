"""Weights of a BERT out of the ONNX graph that PyTorch's exporter wrote of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["weights_of"]


def weights_of(graph: onnx.ModelProto, *, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    """Return the weights by the names of PyTorch's state dict.

    The exporter keeps the names of tables, biases and LayerNorms. Matrices of linear layers it transposes, which names
    them anew, but the node that multiplies by one has the module's path as its name: `/encoder/…/query/MatMul`.

    Args:
        graph: The graph; its weights are inside, float32.
        prefix: What names and paths begin with before those of the encoder, with dots.

    Raises:
        ValueError: for a weight whose name cannot be told.
    """
    from onnx.numpy_helper import to_array

    stored = {tensor.name: to_array(tensor) for tensor in graph.graph.initializer}
    weights = {
        name.removeprefix(prefix): array
        for name, array in stored.items()
        if name.startswith(prefix) and name.endswith((".weight", ".bias"))
    }
    unnamed = stored.keys() - {f"{prefix}{name}" for name in weights}
    for node in graph.graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored:
            module = node.name.removesuffix("/MatMul").strip("/").replace("/", ".")
            _, _, path = f".{module}".partition(f".{prefix}") if prefix else ("", "", module)
            weights[f"{path}.weight"] = np.ascontiguousarray(stored[node.input[1]].T)
            unnamed.discard(node.input[1])
    if unnamed:
        raise ValueError(f"the graph does not say whose weights {', '.join(sorted(unnamed))} are")
    return weights
