"""Accuracy budgets: how far from fp32 a variant may be, to be recommended or, in quantization, to be added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_BUDGET", "LIMITS", "NO_BUDGET", "Limit", "broken", "format_budget", "parse_budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One figure that a budget can bound."""

    name: str
    """What users write."""
    meaning: str
    """What it is, for people."""
    path: tuple[str, str]
    """Where it is in a fidelity."""
    at_least: bool
    """Whether the bound is a lower one."""
    form: str
    """How a report prints it."""
    fine: str
    """How it is printed where a variant is refused for it."""
    counts: bool
    """Whether it is a share of answers that change or stay, and not a distance."""

    def holds(self, value: float, bound: float) -> bool:
        """Tell whether a value keeps to a bound, itself included; what is not a number keeps to none."""
        return value >= bound if self.at_least else value <= bound

    def breach(self, value: float, bound: float, form: str) -> str:
        """Say that a value breaks a bound."""
        side = "at least" if self.at_least else "at most"
        return f"{self.meaning} is {value:{form}}, {side} {bound:{form}} was asked"


LIMITS: dict[str, Limit] = {
    row.name: row
    for row in (
        Limit(
            name="top1",
            meaning="MLM top-1 agreement",
            path=("mlm", "top1_agreement"),
            at_least=True,
            form=".1%",
            fine=".2%",
            counts=True,
        ),
        Limit(
            name="nsp",
            meaning="NSP flips",
            path=("nsp", "flips"),
            at_least=False,
            form=".2%",
            fine=".2%",
            counts=True,
        ),
        Limit(
            name="kl",
            meaning="MLM KL divergence",
            path=("mlm", "kl"),
            at_least=False,
            form=".4f",
            fine=".5f",
            counts=False,
        ),
        Limit(
            name="cosine",
            meaning="hidden-state cosine",
            path=("hidden", "cosine"),
            at_least=True,
            form=".4f",
            fine=".5f",
            counts=False,
        ),
    )
}
"""By name."""
NO_BUDGET = "none"
"""What users write for no budget."""
DEFAULT_BUDGET = "top1=0.98,nsp=0.005"
"""Top-1 agreement of at least 98%, NSP flips of at most 0.5%."""


def parse_budget(text: str) -> dict[str, float]:
    """Read a budget such as `top1=0.98,nsp=0.005`, or `none`, which bounds nothing, into bounds by name.

    Raises:
        UnknownNameError: for a limit that there is not.
        UsageError: for what is not a list of limits with their bounds, or a bound that nothing can reach.
    """
    bounds: dict[str, float] = {}
    if not isinstance(text, str):
        message = f"a budget is a text such as {DEFAULT_BUDGET}, or {NO_BUDGET}, not {excerpt(text)}"
        raise UsageError(message)
    if text.strip() == NO_BUDGET:
        return bounds
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        try:
            bound = float(value)
        except ValueError:
            bound = math.nan
        if not equals or not math.isfinite(bound) or bound < 0:
            message = f"{part.strip()!r} is not a limit: write the budget as {DEFAULT_BUDGET}, or {NO_BUDGET}"
            raise UsageError(message)
        if name not in LIMITS:
            kind = "limit"
            raise UnknownNameError(kind, name, LIMITS)
        limit = LIMITS[name]
        if bound > 1 and (limit.counts or limit.at_least):
            message = (
                f"{part.strip()!r} bounds by more than 1 what is never more: write {bound:g}% as {name}={bound / 100:g}"
            )
            raise UsageError(message)
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
        value, worst = found["value"], found["low" if limit.at_least else "high"]
        if not limit.holds(value, bound):
            breaks.append(limit.breach(value, bound, limit.form))
        elif worst is None or not limit.holds(worst, bound):
            near.append(f"{limit.meaning} holds the bound by its value, its interval reaches to {worst:{limit.form}}")
    return tuple(breaks), tuple(near)
