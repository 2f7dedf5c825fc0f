"""A manifest's record of a variant's accuracy: more samples than a quick look takes, on another day."""

from __future__ import annotations

from collections.abc import Mapping

from bertport.compare.codec import DecodeError, decode
from bertport.compare.measurements import Recorded
from bertport.measure.quality.heads import known_limits
from bertport.measure.statistics import Estimate
from bertport.runtime.providers.cpu import INSTRUCTION_SETS

__all__ = ["recorded", "same_arithmetic"]


def recorded(fidelity: object, *, reference: str, provider: str, here: str) -> Recorded | None:
    """Return what a variant's record says of the figures that a budget can bound; None where it is of something else.

    Args:
        fidelity: The variant's, as the manifest holds it.
        reference: The variant that this comparison takes as right.
        provider: Where the variant runs in it.
        here: This machine's instruction set.
    """
    match fidelity:
        case {"reference": str(of), "accuracy": {**accuracy}, "machine": {"instruction_set": str(there)}, **rest}:
            pass
        case _:
            return None
    if of != reference or rest.get("provider", "cpu") != provider or not same_arithmetic(there, here):
        return None
    figures: dict[str, dict[str, Estimate]] = {}
    for limit in known_limits().values():
        head, key = limit.path
        of_head = accuracy.get(head)
        estimate = _estimate(of_head.get(key)) if isinstance(of_head, Mapping) else None
        if estimate:
            figures.setdefault(head, {})[key] = estimate
    text = rest.get("text")
    return Recorded(
        measured=str(rest.get("measured", "")),
        instruction_set=there,
        text=str(text.get("name", "")) if isinstance(text, Mapping) else "",
        figures=figures,
    )


def same_arithmetic(one: str, other: str) -> bool:
    """Return whether two instruction sets give a variant the same answers: both sum products of 8 bits exactly."""
    rows = [INSTRUCTION_SETS.get(name) for name in (one, other)]
    return one == other or all(row is not None and not row.saturates for row in rows)


def _estimate(value: object) -> Estimate | None:
    """Read an estimate; None for what is none, or has no interval: such a record says nothing."""
    if not isinstance(value, dict) or None in value.values():
        return None
    try:
        return decode(Estimate, value)
    except DecodeError:
        return None
