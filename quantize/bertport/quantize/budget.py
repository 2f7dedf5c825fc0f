"""The accuracy budget of quantization: whether what was measured of a variant is within it.

Its limits, and how users write them, are those of `bertport.measure.budget`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.measure import budget as limits
from bertport.measure.budget import NO_BUDGET
from bertport.measure.quality.heads import limit_named
from bertport.measure.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Collection

    from bertport.measure.quality.heads import Limit
    from bertport.measure.quality.results import Fidelity

__all__ = ["NO_BUDGET", "Budget", "budget_for", "default_budget", "parse_budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bounds on what was measured."""

    bounds: dict[str, float]
    """By name of the limit; empty for no budget at all."""

    def __str__(self) -> str:
        """Return the budget as users write it."""
        return ",".join(f"{name}={bound:g}" for name, bound in self.bounds.items()) or NO_BUDGET

    def broken(self, found: Fidelity) -> tuple[str, ...]:
        """Say which bounds do not hold; a head that the model lacks breaks none."""
        sentences = []
        for name, bound in self.bounds.items():
            limit = limit_named(name)
            value = _value(found, limit)
            if value is not None and not limit.holds(value, bound):
                sentences.append(f"{limit.meaning} is {value:{limit.fine}}, {limit.asked(bound, limit.fine)} was asked")
        return tuple(sentences)

    def verdicts(self, found: Fidelity) -> dict[str, dict[str, Any]]:
        """Judge each bound by its figure's whole interval, which `broken` does not do: see `compare.budget.judge`.

        A variant is added where its figures keep to the budget, though their intervals may not: the search ends with
        the first that does, so that a figure near its bound is the rule. What the intervals say is recorded.
        """
        return {name: each.to_json() for name, each in limits.judge_all(self.bounds, found.to_json()).items()}

    def shares(self, found: Fidelity) -> dict[str, float]:
        """Return the share of its distance from fp32 that each head may keep, about, if broken bounds are to hold.

        Answers change where the rounding noise exceeds the lead of the best one, so their share grows with the noise,
        and KL with its square.

        Returns:
            By name of the head; only those of which a bound is broken.
        """
        shares: dict[str, float] = {}
        for name, bound in self.bounds.items():
            limit = limit_named(name)
            value = _value(found, limit)
            if value is None or limit.holds(value, bound):
                continue
            head, _ = limit.path
            allowed, reached = (1 - bound, 1 - value) if limit.at_least else (bound, value)
            # A bound that nothing can hold, and a figure that is no number, leave nothing.
            share = max(0.0, allowed / reached) ** (2 if limit.counts else 1) if allowed > 0 else 0.0
            shares[head] = min(share, shares.get(head, 1.0))
        return shares


def _value(found: Fidelity, limit: Limit) -> float | None:
    """Return the figure that a limit bounds; None where its head was not measured."""
    head, key = limit.path
    figures = found.heads.get(head)
    figure = figures.read(key) if figures else None
    return figure.value if isinstance(figure, Estimate) else None


def parse_budget(text: str) -> Budget:
    """Read a budget such as `top1=0.98,nsp=0.005`, or `none`.

    Raises:
        UnknownNameError: for a limit that there is not.
        UsageError: for what is not a list of limits with their bounds.
    """
    return Budget(bounds=limits.parse_budget(text))


def default_budget() -> Budget:
    """Return what variants are held to unless users say otherwise."""
    return parse_budget(limits.default_budget())


def budget_for(asked: Budget | None, heads: Collection[str]) -> Budget:
    """Return the budget of a bundle: the one that was asked for, or what of the default is measured there.

    Args:
        asked: None for the default.
        heads: The heads that are measured.

    Raises:
        MissingHeadError: for a bound that was asked for on a head that is not measured.
    """
    if asked is None:
        return Budget(bounds=limits.applicable(default_budget().bounds, heads))
    limits.refuse_idle(asked.bounds, heads)
    return asked
