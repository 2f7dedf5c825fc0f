"""Holding a budget: where the plain recipe breaks it, leave in higher precision the layers that a search finds."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from bertport.quantize.deadline import Deadline, TimeUpError, format_duration
from bertport.quantize.evaluation import Evaluation, evaluate, read_evaluation
from bertport.quantize.isa import saturates
from bertport.quantize.recipes.table import searchable
from bertport.quantize.search.layer_timing import linears, saved_milliseconds
from bertport.quantize.search.sensitivity import Layers, damage, most_tries, rank, search
from bertport.runtime.errors import UsageError, ValidationError
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, cpu

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from bertport.measure.budget import Budget
    from bertport.measure.quality.model import Graph
    from bertport.measure.quality.results import Fidelity
    from bertport.quantize.evaluation import Progress
    from bertport.quantize.recipes.source import Request
    from bertport.quantize.recipes.table import Recipe
    from bertport.runtime.bundle.directory import Bundle

__all__ = ["Bench", "BrokenBudgetError", "Held", "hold_budget", "rank_layers"]

RANKING = {"positions": 400, "pairs": 60}
"""Samples behind each row of the table: KL differs enough between layers to be told on few."""
SEARCHING = {"positions": 1000, "pairs": 200}
"""Samples behind each combination of the search: KL to about a twentieth of itself."""
AIMS = 4
"""Searches, each of which aims lower, while what they find breaks the budget on held-out text; then all layers are
left in higher precision."""
STEP = 0.9
"""The share of KL that a further search aims at, at most: what little is missing may be the noise of either text."""
REACHABLE = 0.1
"""The share of what higher precision takes away in all layers together that the first search leaves at least, and each
further one half of it: near the end each further layer buys next to nothing."""
STABILITY = 32
"""Texts of each kind on which the effect of batch mates and padding is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What candidates of a bundle are measured with."""

    bundle: Bundle
    """The bundle."""
    reference: Graph
    """Its fp32 serving graph."""
    evaluation: Evaluation
    """Held-out samples, which decide."""
    calibration: str | os.PathLike[str] | None
    """Text for searching; None for the sample that ships."""
    progress: Progress
    """Told of what is done."""
    provider: str = "cpu"
    """Short name of the provider that candidates run on."""
    deadline: Deadline = field(default_factory=Deadline)
    """When the search ends."""

    def accuracy(self, recipe: Recipe, request: Request, samples: Evaluation, *, stability: int = 0) -> Fidelity:
        """Make a graph and measure it, in memory."""
        graph = recipe.make(request).SerializeToString()
        # The search reports its own steps.
        quiet = self.progress if stability else self.deadline.watching(_silent)
        return evaluate(
            self.bundle,
            self.reference,
            graph,
            samples,
            stability=stability,
            progress=quiet,
            provider=self.provider,
            exact=self.provider not in recipe.providers,
        )


def _silent(stage: str, done: int, count: int) -> None:
    """Say nothing."""


class BrokenBudgetError(ValidationError):
    """A variant that breaks its budget, and the nearest that was reached.

    Args:
        message: For the user.
        accuracy: What was measured of it.
    """

    def __init__(self, message: str, accuracy: Fidelity) -> None:
        super().__init__(message)
        self.accuracy = accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A graph that holds the budget."""

    request: Request
    """What it is made from."""
    accuracy: Fidelity
    """What was measured of it on the held-out text."""
    layers: Layers | None
    """The table of the search; None where the plain recipe held, or the time was up before."""
    search: dict[str, Any] | None = None
    """What the search did; None where there was none."""


@dataclass(slots=True)
class _Reached:
    """What a search has reached so far."""

    accuracy: Fidelity
    """What was measured last on held-out text."""
    estimate: tuple[float, float] = (0.0, 0.0)
    """Seconds that it takes, from and to."""
    combinations: int = 0
    """Combinations of layers measured on held-out text, the plain recipe aside."""
    held: Held | None = None
    """One that holds the budget, if not with the fewest layers."""
    layers: Layers | None = None
    """The table of layers."""

    def record(self, deadline: Deadline, *, cut: bool) -> dict[str, Any]:
        """Return what a manifest says of the search."""
        return {
            "estimated_seconds": [round(each, 1) for each in self.estimate],
            "combinations_on_held_out_text": self.combinations,
            "time_limit_seconds": deadline.limit,
            "cut": cut,
        }


def hold_budget(bench: Bench, recipe: Recipe, request: Request, budget: Budget) -> Held:
    """Find the graph of a recipe that holds a budget: the plain one, or one with layers in higher precision.

    The held-out text decides, and tells how far KL must fall; the text for searching, by which layers that is had.

    Raises:
        ValidationError: when none does; the message tells how near the nearest came.
    """
    accuracy = bench.accuracy(recipe, request, bench.evaluation, stability=STABILITY)
    if not budget.broken(accuracy):
        return Held(request=request, accuracy=accuracy, layers=None)
    if recipe.emitter is None:
        raise _broken(recipe, budget, accuracy, "choose another recipe")
    reached = _Reached(accuracy)
    try:
        found = _searched(bench, recipe, request, budget, reached)
        return dataclasses.replace(found, search=reached.record(bench.deadline, cut=False))
    except TimeUpError:
        if reached.held:
            record = reached.record(bench.deadline, cut=True)
            return dataclasses.replace(reached.held, layers=reached.layers, search=record)
        limit = format_duration(bench.deadline.limit or 0)
        advice = f"and the time limit of {limit} passed before a combination that holds it was found: give more time"
        raise _broken(recipe, budget, reached.accuracy, advice) from None


def _searched(bench: Bench, recipe: Recipe, request: Request, budget: Budget, reached: _Reached) -> Held:
    """Search for layers to leave in higher precision; what holds the budget is noted in `reached` at once."""
    # Two products in 8 bits are faster than one in float32 only where one is more than twice as fast: not on AVX2.
    halfway = recipe.halfway and not saturates(INSTRUCTION_SETS.get(cpu().instruction_set))
    levels = [dataclasses.replace(request, in_float=level) for level in ((False, True) if halfway else (True,))]
    broken = budget.shares(reached.accuracy)
    samples = read_evaluation(bench.bundle, bench.calibration, sample="calibration", **SEARCHING)
    began = time.monotonic()
    plain = bench.accuracy(recipe, request, samples)
    every = _names(recipe, levels[0])
    reached.estimate = _estimate(time.monotonic() - began, len(every), samples, bench.evaluation, len(levels))
    span = " to ".join(format_duration(each) for each in reached.estimate)
    bench.progress(f"{recipe.name} breaks its budget, and the search for layers to leave in higher takes {span}", 0, 0)
    if bench.deadline.limit is not None:
        levels = _fallback(bench, recipe, levels, every, budget, reached)
    layers = reached.layers = rank_layers(bench, recipe, levels[0], head=min(broken, key=lambda head: broken[head]))
    for level in levels:
        measure = cache(partial(_with_higher, bench, recipe, level, samples))
        # What remains with all layers in this precision is beyond any search.
        floor = {head: damage(measure(every), head) for head, figures in plain.heads.items() if figures}
        most = {head: damage(plain, head) * share for head, share in broken.items()}
        tried: list[frozenset[str]] = []
        while every not in tried:
            higher = every
            if len(tried) < AIMS:
                left = REACHABLE / 2 ** len(tried)
                aims = {
                    head: max(bound, floor[head] + left * (damage(plain, head) - floor[head]))
                    for head, bound in most.items()
                }
                found = search(layers, partial(_within, aims), measure, progress=bench.progress).higher
                higher = every if found in tried else found
            tried.append(higher)
            held = _on_held_out(bench, recipe, dataclasses.replace(level, higher=higher), budget, reached)
            if held:
                return dataclasses.replace(held, layers=layers)
            for head, share in budget.shares(reached.accuracy).items():
                most[head] = damage(measure(higher), head) * min(share, STEP)
    raise _broken(
        recipe, budget, reached.accuracy, "with as many layers in higher precision as were tried: choose another recipe"
    )


def _on_held_out(bench: Bench, recipe: Recipe, request: Request, budget: Budget, reached: _Reached) -> Held | None:
    """Measure a combination on held-out text; return it where it holds the budget."""
    reached.accuracy = bench.accuracy(recipe, request, bench.evaluation, stability=STABILITY)
    reached.combinations += 1
    if budget.broken(reached.accuracy):
        return None
    return Held(request=request, accuracy=reached.accuracy, layers=None)


def _fallback(  # noqa: PLR0913, PLR0917 — what the search has
    bench: Bench,
    recipe: Recipe,
    levels: Sequence[Request],
    every: frozenset[str],
    budget: Budget,
    reached: _Reached,
) -> list[Request]:
    """Find what can be written when the time is up: all layers in higher precision; return the levels from there on."""
    for index, level in enumerate(levels):
        reached.held = _on_held_out(bench, recipe, dataclasses.replace(level, higher=every), budget, reached)
        if reached.held:
            return list(levels[index:])
    raise _broken(recipe, budget, reached.accuracy, "with all layers in higher precision: choose another recipe")


def _names(recipe: Recipe, request: Request) -> frozenset[str]:
    return frozenset(layer.name for layer in linears(recipe.source(request)))


def _estimate(
    seconds: float, layers: int, samples: Evaluation, held_out: Evaluation, levels: int
) -> tuple[float, float]:
    """Return how many seconds a search takes, from and to, by what one measurement on its text took."""
    ranking = seconds * min(1.0, RANKING["positions"] / SEARCHING["positions"]) * (layers + 2)
    once = seconds * held_out.tokens / max(1, samples.tokens)
    least = ranking + seconds * math.ceil(math.log2(layers + 1)) + once
    return least, ranking + levels * (AIMS * most_tries(layers) * seconds + (AIMS + 1) * once)


def _within(most: Mapping[str, float], found: Fidelity) -> bool:
    """Tell whether no head is farther from fp32 than it may be."""
    return all(damage(found, head) <= bound for head, bound in most.items())


def _with_higher(
    bench: Bench, recipe: Recipe, request: Request, samples: Evaluation, higher: frozenset[str]
) -> Fidelity:
    return bench.accuracy(recipe, dataclasses.replace(request, higher=higher), samples)


def rank_layers(bench: Bench, recipe: Recipe, request: Request, *, head: str | None = None) -> Layers:
    """Make the table of a recipe's layers, on the text for searching.

    Args:
        bench: What graphs are measured with.
        recipe: The recipe.
        request: What its graphs are made from.
        head: Whose KL ranks them, as in `damage`.
    """
    samples = read_evaluation(bench.bundle, bench.calibration, sample="calibration", **RANKING)
    layers = linears(recipe.source(request))
    emitter = recipe.emitter
    if emitter is None:
        raise UsageError(f"{recipe.name} has no layers to rank: choose one of {', '.join(searchable())}")
    return rank(
        {layer.name: layer.weights.shape for layer in layers},
        saved_milliseconds(
            layers, lambda higher: emitter(dataclasses.replace(request, higher=higher)), progress=bench.progress
        ),
        lambda higher: bench.accuracy(recipe, dataclasses.replace(request, higher=higher), samples),
        head=head,
        text=samples.to_json(),
        machine=cpu().instruction_set,
        progress=bench.progress,
    )


def _broken(recipe: Recipe, budget: Budget, found: Fidelity, advice: str) -> BrokenBudgetError:
    reasons = "; ".join(budget.broken(found))
    message = (
        f"{recipe.name} breaks the accuracy budget {budget} ({reasons}), {advice}, or give a wider --accuracy-budget; "
        "the bundle is as it was"
    )
    return BrokenBudgetError(message, found)
