"""Graph pass: store the tied decoder matrix once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["tie_decoder"]


def tie_decoder(model: ir.Model) -> tuple[ir.Model, bool]:
    """Replace a matrix that is another one's transpose by a Transpose of that one.

    The exporter transposes every weight of a MatMul when it folds constants, and so stores the tied decoder a
    second time (534 MB for BERT-base's 440, microsoft/onnxruntime#21277). ONNX Runtime folds the Transpose when
    it loads the graph.

    Matches `MatMul(x, W)` where the initialiser W of shape [a, b] is, bit for bit, the transpose of an
    initialiser that a Gather reads. Declines where there is none, as with a decoder of its own.
    """
    import onnx_ir as ir

    graph = model.graph
    tables = [node.inputs[0] for node in graph if node.op_type == "Gather" and _matrix(node.inputs[0]) is not None]
    for node in graph:
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or weight.name is None or _matrix(weight) is None or len(weight.uses()) != 1:
            continue
        for table in filter(None, tables):
            if not _is_transpose(weight, table):
                continue
            turned = ir.Value(name=f"{table.name}.transposed")
            transpose = ir.node("Transpose", [table], {"perm": [1, 0]}, outputs=[turned], name=f"/{turned.name}")
            graph.insert_before(node, transpose)
            node.replace_input_with(1, turned)
            del graph.initializers[weight.name]
            return model, True
    return model, False


def _matrix(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of an initialiser that is a matrix; None for any other value."""
    tensor = value.const_value if value is not None and value.is_initializer() else None
    return tensor if tensor is not None and len(tensor.shape) == 2 else None  # noqa: PLR2004 — a matrix


def _is_transpose(one: ir.Value, other: ir.Value) -> bool:
    """Return whether an initialiser is, bit for bit, the transpose of another."""
    import numpy as np

    turned, tensor = _matrix(one), _matrix(other)
    if turned is None or tensor is None or turned.dtype != tensor.dtype:
        return False
    if list(turned.shape) != list(tensor.shape)[::-1]:
        return False
    one_turned, array = turned.numpy().T, tensor.numpy()
    bits = f"u{array.itemsize}"  # neither is copied: they are the largest matrices of a model
    return np.array_equal(one_turned.view(bits), array.view(bits))
