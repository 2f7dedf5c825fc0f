"""Dependency check: every package that an export needs, looked for before any work is done."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from bertport.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RESTORING", "check_dependencies"]

NEEDED = {
    "torch": "export",
    "transformers": "export",
    "optimum": "export",
    "optimum.exporters.onnx": "export",
    "onnx": "export",
    "onnx_ir": "export",
    "safetensors": "export",
    # Validation runs the graphs. ONNX Runtime's wheels cannot coexist, so it is an extra of its own.
    "onnxruntime": "cpu,export",
}
"""The extras that install each package."""

RESTORING = tuple(name for name in NEEDED if not name.startswith("optimum"))
"""What restoring a checkpoint needs: no tracing."""


def check_dependencies(command: str = "export", modules: Iterable[str] = tuple(NEEDED)) -> None:
    """Look for every package that a command needs, importing none.

    Args:
        command: what needs them, for the message.
        modules: their names, of `NEEDED`.

    Raises:
        MissingDependencyError: for the first that is not installed.
    """
    for module in modules:
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise MissingDependencyError(command, module, NEEDED[module])
