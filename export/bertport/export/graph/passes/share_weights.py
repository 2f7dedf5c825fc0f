"""Graph pass: let a second graph read the first one's weights where they already lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

__all__ = ["SMALLEST_SHARED", "Location", "share_weights"]

SMALLEST_SHARED = 1024
"""Bytes; smaller tensors, among them the shapes that ONNX Runtime reads while it loads, stay in the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Location of a tensor's bytes."""

    file: str
    """Name of the file, in the graph's own directory."""
    offset: int
    """Position of the first byte."""
    length: int
    """Number of bytes."""


def share_weights(model: ir.Model, places: Mapping[str, Location]) -> tuple[ir.Model, bool]:
    """Point initialisers to bytes of another file, and drop them from the graph.

    Matches initialisers named in `places` of 1 KiB or more. Declines where there are none.

    Args:
        model: the graph, in the directory of the files that hold the weights.
        places: where each tensor's bytes are, by its name.
    """
    import onnx_ir as ir

    changed = False
    for name, value in model.graph.initializers.items():
        place, tensor = places.get(name), value.const_value
        if place is None or tensor is None or place.length < SMALLEST_SHARED:
            continue
        value.const_value = ir.ExternalTensor(
            place.file, place.offset, place.length, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
        )
        changed = True
    return model, changed
