"""Dependency check: every package that export and restore need, looked for before any work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.runtime.errors import MissingDependencyError
from bertport.runtime.installation import first_missing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["THROUGH_OPTIMUM", "check_dependencies"]

NEEDED = {
    "torch": "export",
    "transformers": "export",
    "optimum": "export",
    "requests": "export",  # which Optimum imports and does not bring
    "onnx": "export",
    "onnx_ir": "export",
    "safetensors": "export",
    # Validation runs the graphs. ONNX Runtime's wheels cannot coexist, so it is an extra of its own.
    "onnxruntime": "cpu,export",
}
"""The extras that install each package."""

THROUGH_OPTIMUM = {"optimum.exporters.onnx": "export-optimum"}
"""The same of what tracing through Optimum needs beside."""


def check_dependencies(command: str = "export", further: Mapping[str, str] | None = None) -> None:
    """Look for every package that a command needs, importing none.

    Args:
        command: what needs them, for the message.
        further: those that it needs beside, with their extras.

    Raises:
        MissingDependencyError: for the first that is not installed.
    """
    needed = NEEDED | dict(further or {})
    if missing := first_missing(needed):
        raise MissingDependencyError(command, missing, needed[missing])
