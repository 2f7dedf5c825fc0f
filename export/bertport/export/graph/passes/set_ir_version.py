"""Graph pass: stamp a graph with the IR version that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["set_ir_version"]


def set_ir_version(model: ir.Model, version: int) -> tuple[ir.Model, bool]:
    """Set the IR version, which tools otherwise set to the newest that they know; older runtimes refuse that.

    Declines where it is the one asked for.
    """
    before = model.ir_version
    model.ir_version = version
    return model, before != version
