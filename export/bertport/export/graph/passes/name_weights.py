"""Graph pass: rename the exporter's nameless weights to the checkpoint's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

__all__ = ["name_weights"]


def name_weights(model: ir.Model, modules: Iterable[str] = ()) -> tuple[ir.Model, bool]:
    """Rename `onnx::MatMul_271` to `bert.encoder.layer.0.attention.self.query.weight`, from its node's path.

    The names are those of the checkpoint, so that a quantization report can speak of them; a MatMul's weight is
    the transpose of the checkpoint's tensor of that name.

    Matches initialisers whose name begins with `onnx::` and that a single node with a path as its name reads.
    Declines a new name that is taken.

    Args:
        model: the graph.
        modules: paths of modules whose nodes the exporter names by the last part alone, as containers before it have
            no forward of their own.
    """
    changed = False
    whole = {path.rpartition(".")[2]: path for path in modules}
    weights = list(model.graph.initializers.values())
    taken = {weight.name for weight in weights}
    for weight in weights:
        readers = weight.consumers()
        path = (readers[0].name or "") if len(readers) == 1 else ""
        if not (weight.name or "").startswith("onnx::") or "/" not in path:
            continue
        first, *inner = path.strip("/").split("/")[:-1]
        name = ".".join([whole.get(first, first), *inner, "weight"])
        if name in taken:
            continue
        taken.add(name)
        weight.name = name
        changed = True
    model.graph.initializers.clear()  # renaming puts a weight last
    for weight in weights:
        model.graph.initializers.add(weight)
    return model, changed
