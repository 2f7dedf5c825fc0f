"""Rename the exporter's nameless weights to the checkpoint's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.export.graph.passes.graph import consumers, initializers

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

__all__ = ["name_weights"]


def name_weights(model: onnx.ModelProto, modules: Iterable[str] = ()) -> tuple[onnx.ModelProto, bool]:
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
    taken = set(initializers(model))
    for tensor in model.graph.initializer:
        readers = consumers(model, tensor.name)
        if not tensor.name.startswith("onnx::") or len(readers) != 1 or "/" not in readers[0].name:
            continue
        first, *path = readers[0].name.strip("/").split("/")[:-1]
        name = ".".join([whole.get(first, first), *path, "weight"])
        if name in taken:
            continue
        taken.add(name)
        node = readers[0]
        node.input[:] = [name if each == tensor.name else each for each in node.input]
        tensor.name = name
        changed = True
    return model, changed
