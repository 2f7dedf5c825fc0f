"""Variants measured on another instruction set: notes for those who ask, and a warning where answers may be wrong."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.select import CPU, overflows, suits
from bertport.runtime.errors import PathError
from bertport.runtime.providers.cpu import GENERIC, cpu

if TYPE_CHECKING:
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import Variant
    from bertport.runtime.providers.table import Provider

__all__ = ["may_overflow", "measured_elsewhere", "notes", "warn_if_measured_elsewhere"]

EXACT = "weight-only"
"""The end of the recipes whose 8-bit products are summed in 32 bits on every CPU: MatMulNBits, whose largest error on
weights and activations of one sign is the same with AVX2 alone (`bench/avx2`) as with VNNI."""

_LOG = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()


def measured_elsewhere(variant: Variant, here: str) -> str | None:
    """Return the instruction set that a quantized variant was measured on, when it is another than `here`."""
    machine = (variant.fidelity or {}).get("machine")
    measured = machine.get("instruction_set") if isinstance(machine, dict) else None
    return measured if isinstance(measured, str) and measured != here else None


def notes(bundle: Bundle) -> dict[str, str]:
    """Return a note for each variant that was measured on another instruction set: which one, and what to do."""
    here = cpu().instruction_set
    embedded = False
    with suppress(PathError):
        embedded = bundle.path.resolve() == default_bundle().resolve()
    # Nobody can write into an installed package, nor should.
    advice = "" if embedded else f": bertport quantize --remeasure {bundle.path}"
    return {
        name: f"measured on {measured}; this machine has {here}, where speed and accuracy may differ{advice}"
        for name, variant in bundle.manifest.variants.items()
        if suits(variant.requires, CPU) and (measured := measured_elsewhere(variant, here))
    }


def may_overflow(variant: Variant, here: str) -> bool:
    """Return whether answers may be wrong here though nothing refuses the variant.

    One that says what it is made for is refused where it overflows (`select.overflows`), and bertport writes none
    with products of 8 bits that does not say. One of another origin may have weights of the full range: it shows
    where it was measured on a CPU that sums exactly, and this one does not. On CPUs of which nothing is known bertport
    makes variants for the worst of them.
    """
    measured = measured_elsewhere(variant, here)
    integers = variant.recipe.startswith("int") and not variant.recipe.endswith(EXACT)
    return variant.requires.isa is None and integers and measured not in {None, GENERIC} and overflows(measured)


def warn_if_measured_elsewhere(bundle: Bundle, name: str, provider: Provider) -> None:
    """Warn on standard error, once a process and variant, of answers that may be wrong on this CPU.

    A log record and not a Python warning: nothing is wrong with the program, and a program that turns warnings into
    errors must run on every machine. Without a handler for it, Python's logging writes it to standard error.
    """
    here, path, variant = cpu().instruction_set, str(bundle.path), bundle.manifest.variants[name]
    if not provider.on_cpu or (path, name) in _warned or not may_overflow(variant, here):
        return
    _warned.add((path, name))
    _LOG.warning(
        "bertport: variant %r was measured on %s and does not say which CPUs it is made for; on this one (%s) products "
        "of 8 bits may overflow and its answers be wrong: choose another variant, or run bertport quantize here",
        name,
        measured_elsewhere(variant, here),
        here,
    )
