"""What the passes share: looking things up in a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

__all__ = ["consumers", "initializers", "leading_to"]


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the graph's initialisers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def consumers(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    """Return the nodes that take a value as an input."""
    return [node for node in model.graph.node if name in node.input]


def leading_to(model: onnx.ModelProto, outputs: Iterable[str]) -> set[str]:
    """Return the names of all values that these values are computed from, themselves included."""
    reached = set(outputs)
    for node in reversed(model.graph.node):  # a graph's nodes are sorted topologically
        if reached.intersection(node.output):
            reached.update(node.input)
    return reached
