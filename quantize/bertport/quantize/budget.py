"""The accuracy budget: how far from fp32 a variant may be, and whether a measured one is within."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertport.compare.results import Fidelity

__all__ = ["DEFAULT_BUDGET", "LIMITS", "NO_BUDGET", "Budget", "Limit", "parse_budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One figure that a budget can bound."""

    name: str
    """What users write."""
    meaning: str
    """What it is, for people."""
    at_least: bool
    """Whether the bound is a lower one."""
    form: str
    """How it is printed."""
    read: Callable[[Fidelity], float | None]
    """Takes it out of what was measured; None where the model lacks the head."""


LIMITS: dict[str, Limit] = {
    row.name: row
    for row in (
        Limit(
            name="top1",
            meaning="MLM top-1 agreement",
            at_least=True,
            form=".2%",
            read=lambda found: found.mlm.top1_agreement.value if found.mlm else None,
        ),
        Limit(
            name="nsp",
            meaning="NSP flips",
            at_least=False,
            form=".2%",
            read=lambda found: found.nsp.flips.value if found.nsp else None,
        ),
        Limit(
            name="kl",
            meaning="MLM KL divergence",
            at_least=False,
            form=".5f",
            read=lambda found: found.mlm.kl.value if found.mlm else None,
        ),
        Limit(
            name="cosine",
            meaning="hidden-state cosine",
            at_least=True,
            form=".5f",
            read=lambda found: found.hidden.cosine.value if found.hidden else None,
        ),
    )
}
"""By name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bounds on what was measured."""

    bounds: dict[str, float]
    """By name of the limit; empty for no budget at all."""

    def __str__(self) -> str:
        """Give the budget as users write it."""
        return ",".join(f"{name}={bound:g}" for name, bound in self.bounds.items()) or NO_BUDGET

    def broken(self, found: Fidelity) -> tuple[str, ...]:
        """Say which bounds do not hold; a head that the model lacks breaks none."""
        sentences = []
        for name, bound in self.bounds.items():
            limit, value = LIMITS[name], LIMITS[name].read(found)
            if value is not None and not (value >= bound if limit.at_least else value <= bound):
                side = "at least" if limit.at_least else "at most"
                sentences.append(f"{limit.meaning} is {value:{limit.form}}, {side} {bound:{limit.form}} was asked")
        return tuple(sentences)


NO_BUDGET = "none"
"""What users write for no budget."""
DEFAULT_BUDGET = Budget(bounds={"top1": 0.98, "nsp": 0.005})
"""Top-1 agreement of at least 98%, NSP flips of at most 0.5%."""


def parse_budget(text: str) -> Budget:
    """Read a budget such as `top1=0.98,nsp=0.005`, or `none`.

    Raises:
        UnknownNameError: for a limit that there is not.
        UsageError: for what is not a list of limits with their bounds.
    """
    if text.strip() == NO_BUDGET:
        return Budget(bounds={})
    bounds = {}
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
        bounds[name] = bound
    return Budget(bounds=bounds)
