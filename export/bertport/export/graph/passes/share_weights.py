"""Let a second graph read the first one's weights where they already lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

__all__ = ["Location", "share_weights"]

SMALLEST_SHARED = 1024
"""Bytes; smaller tensors, among them the shapes that ONNX Runtime reads while it loads, stay in the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a tensor's bytes lie."""

    file: str
    """Name of the file, in the graph's own directory."""
    offset: int
    """Position of the first byte."""
    length: int
    """Number of bytes."""


def share_weights(model: onnx.ModelProto, places: Mapping[str, Location]) -> tuple[onnx.ModelProto, bool]:
    """Point initialisers to bytes of another file, and drop them from the graph.

    Matches initialisers named in `places` of 1 KiB or more. Declines where there are none.

    Args:
        model: the graph, in the directory of the files that hold the weights.
        places: where each tensor's bytes are, by its name.
    """
    from onnx import TensorProto

    changed = False
    for tensor in model.graph.initializer:
        place = places.get(tensor.name)
        if place is None or place.length < SMALLEST_SHARED:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (("location", place.file), ("offset", place.offset), ("length", place.length)):
            tensor.external_data.add(key=key, value=str(value))
        changed = True
    return model, changed
