"""The accuracy budget of a recommendation: how far from fp32 a variant may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_BUDGET", "LIMITS", "Limit", "broken", "format_budget", "parse_budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One figure that a budget can bound."""

    name: str
    """What users write."""
    meaning: str
    """What it is, for people."""
    path: tuple[str, str]
    """Where it is in a fidelity's JSON."""
    at_least: bool
    """Whether the bound is a lower one."""
    form: str
    """How it is printed."""


LIMITS: dict[str, Limit] = {
    row.name: row
    for row in (  # the names and directions of `bertport quantize --accuracy-budget`
        Limit(name="top1", meaning="MLM top-1 agreement", path=("mlm", "top1_agreement"), at_least=True, form=".1%"),
        Limit(name="nsp", meaning="NSP flips", path=("nsp", "flips"), at_least=False, form=".2%"),
        Limit(name="kl", meaning="MLM KL divergence", path=("mlm", "kl"), at_least=False, form=".4f"),
        Limit(name="cosine", meaning="hidden-state cosine", path=("hidden", "cosine"), at_least=True, form=".4f"),
    )
}
"""By name."""
DEFAULT_BUDGET = "top1=0.98,nsp=0.005"
"""What `bertport quantize` holds its variants to by default."""


def parse_budget(text: str) -> dict[str, float]:
    """Read a budget such as `top1=0.98,nsp=0.005`, or `none`, which bounds nothing.

    Raises:
        UnknownNameError: for a limit that there is not.
        UsageError: for what is not a list of limits with their bounds.
    """
    bounds: dict[str, float] = {}
    if text.strip() == "none":
        return bounds
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        try:
            bound = float(value)
        except ValueError:
            bound = math.nan
        if not equals or not math.isfinite(bound) or bound < 0:
            message = f"{part.strip()!r} is not a limit: write the budget as {DEFAULT_BUDGET}, or none"
            raise UsageError(message)
        if name not in LIMITS:
            kind = "limit"
            raise UnknownNameError(kind, name, LIMITS)
        bounds[name] = bound
    return bounds


def format_budget(bounds: Mapping[str, float]) -> str:
    """Give a budget in words."""
    words = [
        f"{LIMITS[name].meaning} at {'least' if LIMITS[name].at_least else 'most'} {bound:{LIMITS[name].form}}"
        for name, bound in bounds.items()
    ]
    return ", ".join(words) or "no bounds"


def broken(bounds: Mapping[str, float], fidelity: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say which bounds a fidelity's JSON breaks, and which it holds only by its value and not by its whole interval.

    A head that the model lacks breaks nothing.
    """
    breaks, near = [], []
    for name, bound in bounds.items():
        limit = LIMITS[name]
        head, figure = limit.path
        found = (fidelity.get(head) or {}).get(figure)
        if not found or found["value"] is None:
            continue
        sign = 1 if limit.at_least else -1
        value, worst = found["value"], found["low" if limit.at_least else "high"]
        side = "at least" if limit.at_least else "at most"
        if sign * value < sign * bound:
            breaks.append(f"{limit.meaning} is {value:{limit.form}}, {side} {bound:{limit.form}} was asked")
        elif worst is None or sign * worst < sign * bound:
            near.append(f"{limit.meaning} holds the bound by its value, its interval reaches to {worst:{limit.form}}")
    return tuple(breaks), tuple(near)
