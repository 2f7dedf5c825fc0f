"""Holding a budget: where the plain recipe breaks it, leave in higher precision the layers that a search finds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from bertport.quantize.evaluation import Evaluation, evaluate, read_evaluation
from bertport.quantize.layer_times import linears, saved_milliseconds
from bertport.quantize.recipes import searchable
from bertport.quantize.sensitivity import HEADS, Layers, damage, rank, search
from bertport.quantize.target import saturates
from bertport.runtime.errors import UsageError, ValidationError
from bertport.runtime.machine import INSTRUCTION_SETS, cpu

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from bertport.compare.graph import Graph
    from bertport.compare.results import Fidelity
    from bertport.quantize.budget import Budget
    from bertport.quantize.evaluation import Progress
    from bertport.quantize.recipes import Recipe
    from bertport.quantize.request import Request
    from bertport.runtime.bundle import Bundle

__all__ = ["Bench", "Held", "hold_budget", "rank_layers"]

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

    def accuracy(self, recipe: Recipe, request: Request, samples: Evaluation, *, stability: int = 0) -> Fidelity:
        """Make a graph and measure it, in memory."""
        graph = recipe.make(request).SerializeToString()
        quiet = self.progress if stability else _silent
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
    """Say nothing: the search reports its own steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A graph that holds the budget."""

    request: Request
    """What it is made from."""
    accuracy: Fidelity
    """What was measured of it on the held-out text."""
    layers: Layers | None
    """The table of the search; None where the plain recipe held."""


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
    # Two products in 8 bits are faster than one in float32 only where one is more than twice as fast: not on AVX2.
    halfway = recipe.halfway and not saturates(INSTRUCTION_SETS.get(cpu().instruction_set))
    levels = [dataclasses.replace(request, in_float=level) for level in ((False, True) if halfway else (True,))]
    broken = budget.shares(accuracy)
    layers = rank_layers(bench, recipe, levels[0], head=min(broken, key=lambda head: broken[head]))
    samples = read_evaluation(bench.bundle, bench.calibration, sample="calibration", **SEARCHING)
    plain = bench.accuracy(recipe, request, samples)
    every = frozenset(row.name for row in layers.rows)
    for level in levels:
        measure = cache(partial(_with_higher, bench, recipe, level, samples))
        # What remains with all layers in this precision is beyond any search.
        floor = {head: damage(measure(every), head) for head in HEADS if getattr(plain, head)}
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
            request = dataclasses.replace(level, higher=higher)
            accuracy = bench.accuracy(recipe, request, bench.evaluation, stability=STABILITY)
            if not budget.broken(accuracy):
                return Held(request=request, accuracy=accuracy, layers=layers)
            for head, share in budget.shares(accuracy).items():
                most[head] = damage(measure(higher), head) * min(share, STEP)
    raise _broken(
        recipe, budget, accuracy, "with as many layers in higher precision as were tried: choose another recipe"
    )


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
        message = f"{recipe.name} has no layers to rank: choose one of {', '.join(searchable())}"
        raise UsageError(message)
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


def _broken(recipe: Recipe, budget: Budget, found: Fidelity, advice: str) -> ValidationError:
    reasons = "; ".join(budget.broken(found))
    return ValidationError(
        f"{recipe.name} breaks the accuracy budget {budget} ({reasons}), {advice}, or give a wider --accuracy-budget; "
        "the bundle is as it was"
    )
