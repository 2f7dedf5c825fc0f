"""What a bundle's manifest records of a variant's accuracy: more samples than a quick look takes, on another day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.measure.quality.heads import known_limits
from bertport.runtime.providers.cpu import INSTRUCTION_SETS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["recorded", "same_arithmetic"]


def recorded(fidelity: object, *, reference: str, provider: str, here: str) -> dict[str, Any] | None:
    """Return what a variant's record says of the figures that a budget can bound; None where it is of something else.

    Args:
        fidelity: The variant's, as the manifest holds it.
        reference: The variant that this comparison takes as right.
        provider: Where the variant runs in it.
        here: This machine's instruction set.

    Returns:
        `measured` (when), `instruction_set`, `text` (its name) and `figures`, by head and name as in a row's quality.
    """
    match fidelity:
        case {"reference": str(of), "accuracy": {**accuracy}, "machine": {"instruction_set": str(there)}, **rest}:
            pass
        case _:
            return None
    if of != reference or rest.get("provider", "cpu") != provider or not same_arithmetic(there, here):
        return None
    figures: dict[str, dict[str, Any]] = {}
    for limit in known_limits().values():
        head, name = limit.path
        found = accuracy.get(head)
        if isinstance(found, dict) and _is_estimate(found.get(name)):
            figures.setdefault(head, {})[name] = found[name]
    text = rest.get("text")
    return {
        "measured": str(rest.get("measured", "")),
        "instruction_set": there,
        "text": str(text.get("name", "")) if isinstance(text, dict) else "",
        "figures": figures,
    }


def same_arithmetic(one: str, other: str) -> bool:
    """Tell whether two instruction sets give a variant the same answers: both sum products of 8 bits exactly."""
    rows = [INSTRUCTION_SETS.get(name) for name in (one, other)]
    return one == other or all(row is not None and not row.saturates for row in rows)


def _is_estimate(value: object) -> bool:
    def number(name: str, found: Mapping[str, Any]) -> bool:
        return isinstance(found.get(name), int | float) and not isinstance(found.get(name), bool)

    return isinstance(value, dict) and all(
        number(name, value) for name in ("value", "low", "high", "count", "clusters")
    )
