"""Dependency check: every package that an export needs, looked for before any work is done."""

from __future__ import annotations

import importlib.util

from bertport.runtime.errors import MissingDependencyError

__all__ = ["check_dependencies"]

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


def check_dependencies() -> None:
    """Look for every package that an export needs, importing none.

    Raises:
        MissingDependencyError: for the first that is not installed.
    """
    for module, extra in NEEDED.items():
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None:
            what = "export"
            raise MissingDependencyError(what, module, extra)
