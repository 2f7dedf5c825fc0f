"""Telling, once, that a variant's figures are those of another machine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bertport.runtime.machine import cpu

if TYPE_CHECKING:
    from bertport.runtime.bundle import Bundle
    from bertport.runtime.manifest import Variant
    from bertport.runtime.providers import Provider

__all__ = ["measured_elsewhere", "tell"]

_LOG = logging.getLogger(__name__)
_told: set[tuple[str, str]] = set()


def measured_elsewhere(variant: Variant, here: str) -> str | None:
    """Give the instruction set that a quantized variant was measured on, when it is another than `here`."""
    machine = (variant.fidelity or {}).get("machine")
    measured = machine.get("instruction_set") if isinstance(machine, dict) else None
    return measured if isinstance(measured, str) and measured != here else None


def tell(bundle: Bundle, name: str, provider: Provider) -> None:
    """Say on standard error, once a process and variant, that it was measured on another instruction set.

    A log record and not a Python warning: nothing is wrong with the program, and a program that turns warnings into
    errors must run on every machine. Without a handler for it, Python's logging writes it to standard error.
    """
    here, path = cpu().instruction_set, str(bundle.path)
    measured = measured_elsewhere(bundle.manifest.variants[name], here)
    if provider.name != "cpu" or measured is None or (path, name) in _told:
        return
    _told.add((path, name))
    _LOG.warning(
        "bertport: variant %r was measured on %s and this machine has %s, where speed and accuracy may differ: "
        "bertport quantize --remeasure %s",
        name,
        measured,
        here,
        path,
    )
