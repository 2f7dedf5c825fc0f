"""Applying a graph pass, or damage in its place, to a model as protobuf."""

from __future__ import annotations

import onnx_ir as ir

from bertport.export.graph.onnx_files import to_proto


def apply(graph_pass, model, *arguments):
    """Return what a pass makes of a model, and whether it changed it."""
    changed, modified = graph_pass(ir.from_proto(model), *arguments)
    return to_proto(changed), modified


def unchanged(model):
    """Return a model as a pass that does nothing leaves it."""
    return to_proto(ir.from_proto(model))


def as_pass(change):
    """Return a pass that changes a model as protobuf by a function, whatever else it is given."""

    def changed(model, *_):
        return ir.from_proto(change(to_proto(model))), True

    return changed
