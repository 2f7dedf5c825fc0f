"""Graph pass: remove Identity nodes between a weight and the nodes that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["drop_identities"]


def drop_identities(model: ir.Model) -> tuple[ir.Model, bool]:
    """Remove each Identity of an initialiser, so that all readers of a weight can be seen to read it.

    The exporter stores equal weights once and puts an Identity before their other readers, as for an encoder whose
    layers are one.

    Matches `Identity(W)` with an initialiser W where the name of its output begins with `onnx::`, as that of a matrix
    that the exporter has transposed. Declines where the output is the graph's, or has the name of a parameter, which
    would be lost. onnx_ir's own pass takes Identity nodes of every kind, and fails on branches that give out a value
    from outside.
    """
    changed = False
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Identity" else None
        copy = node.outputs[0]
        if source is None or not source.is_initializer() or not (copy.name or "").startswith("onnx::"):
            continue
        if copy.is_graph_output():
            continue
        copy.replace_all_uses_with(source)
        model.graph.remove(node, safe=True)
        changed = True
    return model, changed
