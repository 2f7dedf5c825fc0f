"""The CPU instruction set that a variant is made for."""

from __future__ import annotations

from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, InstructionSet, cpu

__all__ = ["AUTO", "CHOICES", "resolve_isa", "saturates"]

AUTO = "auto"
"""The name for this machine's own."""
CHOICES = (AUTO, *INSTRUCTION_SETS)


def resolve_isa(name: str = AUTO, *, here: str | None = None) -> InstructionSet | None:
    """Return the row of an instruction set.

    Args:
        name: One of `CHOICES`.
        here: The instruction set of this machine; asked of the operating system when not given.

    Returns:
        None under `auto` on a CPU of which nothing is known.

    Raises:
        UnknownNameError: for a name that is none of them.
        UsageError: when this machine's arithmetic would saturate on such a graph, so that it cannot be measured here.
    """
    here = cpu().instruction_set if here is None else here
    if name == AUTO:
        return INSTRUCTION_SETS.get(here)
    if name not in INSTRUCTION_SETS:
        raise UnknownNameError("instruction set", name, CHOICES)
    chosen = INSTRUCTION_SETS[name]
    if saturates(INSTRUCTION_SETS.get(here)) and not chosen.saturates:
        raise UsageError(
            f"a variant for {name} uses the full range of 8 bits, which overflows on this machine ({here}), so it "
            f"cannot be measured here: choose --isa auto or avx2, or quantize on a machine with {name}"
        )
    return chosen


def saturates(row: InstructionSet | None) -> bool:
    """Return whether pairs of products may overflow; of an unknown CPU the worst is assumed."""
    return row is None or row.saturates
