"""Stamp a graph with the IR version and producer that are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["set_versions"]


def set_versions(model: onnx.ModelProto, *, ir_version: int, producer_version: str) -> tuple[onnx.ModelProto, bool]:
    """Set the IR version, which the onnx package would otherwise set to its newest, and name the producer."""
    before = (model.ir_version, model.producer_name, model.producer_version)
    after = (ir_version, "bertport", producer_version)
    model.ir_version, model.producer_name, model.producer_version = after
    return model, before != after
