"""Multiply by a matrix's transpose without making the transpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.export.graph.passes.graph import consumers

if TYPE_CHECKING:
    import onnx

__all__ = ["decoder_as_gemm"]


def decoder_as_gemm(model: onnx.ModelProto, logits: str) -> tuple[onnx.ModelProto, bool]:
    """Turn Transpose, MatMul and Add into one Gemm, which reads the matrix as it is stored.

    ONNX Runtime folds a constant's Transpose when it loads a graph, which takes the time and memory of one more
    copy of the vocabulary's matrix: a session of the default model opened in 170 ms instead of 250, with 45 MiB less
    at its peak.

    Matches `Add(MatMul(x, Transpose(W)), b)` that gives `logits`. Gemm takes no batch of matrices, so this is for a
    graph whose positions were gathered. Declines where there is no such Add, or the Transpose has other readers.
    """
    from onnx import helper

    producers = {output: node for node in model.graph.node for output in node.output}
    add = producers.get(logits)
    if add is None or add.op_type != "Add":
        return model, False
    for side in (0, 1):
        product = producers.get(add.input[side])
        turned = producers.get(product.input[1]) if product is not None and product.op_type == "MatMul" else None
        if product is None or turned is None or turned.op_type != "Transpose":
            continue
        if len(consumers(model, product.output[0])) > 1 or len(consumers(model, turned.output[0])) > 1:
            continue
        inputs = [product.input[0], turned.input[0], add.input[1 - side]]
        gemm = helper.make_node("Gemm", inputs, [logits], name=product.name.replace("MatMul", "Gemm"), transB=1)
        model.graph.node.insert(list(model.graph.node).index(add), gemm)
        for node in (turned, product, add):
            model.graph.node.remove(node)
        return model, True
    return model, False
