"""Store the tied decoder matrix once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.export.graph.passes.graph import consumers, initializers

if TYPE_CHECKING:
    import onnx

__all__ = ["tie_decoder"]


def tie_decoder(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Replace a matrix that is another one's transpose by a Transpose of that one.

    The exporter transposes every weight of a MatMul when it folds constants, and so stores the tied decoder a
    second time (534 MB for BERT-base's 440, microsoft/onnxruntime#21277). ONNX Runtime folds the Transpose when
    it loads the graph.

    Matches `MatMul(x, W)` where the initialiser W of shape [a, b] is, bit for bit, the transpose of an
    initialiser that a Gather reads. Declines where there is none, as with a decoder of its own.
    """
    from onnx import helper, numpy_helper

    tensors = initializers(model)
    gathered = [node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in tensors]
    tables = {name: tensors[name] for name in gathered if len(tensors[name].dims) == 2}  # noqa: PLR2004 — matrices
    for index, node in enumerate(model.graph.node):
        if node.op_type != "MatMul" or node.input[1] not in tensors:
            continue
        weight = tensors[node.input[1]]
        if len(consumers(model, weight.name)) != 1:
            continue
        for table in tables.values():
            if list(weight.dims) != list(reversed(table.dims)) or weight.data_type != table.data_type:
                continue
            if numpy_helper.to_array(weight).T.tobytes() != numpy_helper.to_array(table).tobytes():
                continue
            transposed = f"{table.name}.transposed"
            model.graph.node.insert(
                index, helper.make_node("Transpose", [table.name], [transposed], name=f"/{transposed}", perm=[1, 0])
            )
            node.input[1] = transposed
            model.graph.initializer.remove(weight)
            return model, True
    return model, False
