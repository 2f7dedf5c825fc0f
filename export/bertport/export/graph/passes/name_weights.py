"""Graph pass: rename the exporter's nameless weights to the checkpoint's names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["modules_of", "name_weights"]

CALL = re.compile(r"_\d+(?=/|$)")
"""The suffix that the exporter gives to the name of a module that is called again."""


def name_weights(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rename `onnx::MatMul_271` to `bert.encoder.layer.0.attention.self.query.weight`, from its node's path.

    The names are those of the checkpoint, so that a quantization report can speak of them; a MatMul's weight is
    the transpose of the checkpoint's tensor of that name.

    Matches initialisers whose name begins with `onnx::` and that nodes of one module alone read, by the path that is
    their name. Declines a new name that is taken.
    """
    changed = False
    weights = list(model.graph.initializers.values())
    taken = {weight.name for weight in weights}
    for weight in weights:
        modules = modules_of(weight)
        module = modules.pop() if len(modules) == 1 else ""
        if not (weight.name or "").startswith("onnx::") or not module:
            continue
        name = f"{module}.weight"
        if name in taken:
            continue
        taken.add(name)
        weight.name = name
        changed = True
    model.graph.initializers.clear()  # renaming puts a weight last
    for weight in weights:
        model.graph.initializers.add(weight)
    return model, changed


def modules_of(weight: ir.Value) -> set[str]:
    """Return the names of the modules whose nodes read a weight: the exporter names nodes by their path."""
    paths = {CALL.sub("", (node.name or "").strip("/").rpartition("/")[0]) for node in weight.consumers()}
    return {path.replace("/", ".") for path in paths}
