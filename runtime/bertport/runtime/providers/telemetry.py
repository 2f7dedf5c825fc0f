"""ONNX Runtime's telemetry is off unless the user leaves it on.

From 1.29 its wheels write a device id and a queue of events into the user's cache as soon as they are imported, and
send them. They read one variable at that moment, so it is set when `bertport.runtime` is imported, which every area
does first: then it also holds for imports that other packages make, and for child processes.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["VARIABLE", "silence", "state", "turn_off"]

VARIABLE = "ORT_DISABLE_TELEMETRY"
"""Environment variable that ONNX Runtime reads once, when it is imported."""
DISABLING = frozenset({"1", "true", "yes", "on"})
"""The values that turn telemetry off; with any other it runs (ONNX Runtime 1.32)."""

_late = False


def turn_off() -> None:
    """Set the variable, unless the user did; an empty one is no setting."""
    global _late  # noqa: PLW0603 — a fact about the process
    if os.environ.get(VARIABLE):
        return
    os.environ[VARIABLE] = "1"
    _late = sys.modules.get("onnxruntime") is not None


def silence(module: ModuleType) -> None:
    """Turn telemetry off in an imported ONNX Runtime, unless the user left it on.

    All that can be done where it was imported before the variable was set, and on Windows before 1.29.
    """
    if _disabled() and hasattr(module, "disable_telemetry_events"):
        module.disable_telemetry_events()


def state() -> tuple[str, str | None]:
    """Return whether telemetry is `off`, `partly off` or `on`, and where it is not off, why and what to do."""
    if not _disabled():
        return "on", f"left on by {VARIABLE}={os.environ.get(VARIABLE, '')}: unset it, or set it to 1"
    if _late:
        return "partly off", (
            f"onnxruntime was imported before bertport.runtime, so its device id was written: set {VARIABLE}=1 in the "
            "environment, or import bertport.runtime first"
        )
    return "off", None


def _disabled() -> bool:
    return os.environ.get(VARIABLE, "").strip().lower() in DISABLING
