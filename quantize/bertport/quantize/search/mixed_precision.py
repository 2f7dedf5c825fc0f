"""Meeting a budget: where the plain recipe breaks it, a search finds the layers to leave in higher precision.

The held-out text decides whether a budget is met, and tells how far KL must fall; the text for searching tells by
which layers that is reached. So a search has a target for each head: the KL that it may leave on its own text. The
first target follows from the breach that was measured; each further one is lower, while what the search finds breaks
the budget on held-out text.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from bertport.measure.quality.heads import HIDDEN
from bertport.quantize.deadline import TimeUpError, format_duration
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.isa import saturates
from bertport.quantize.recipes.table import searchable
from bertport.quantize.search.layer_timing import saved_milliseconds
from bertport.quantize.search.sensitivity import kl_increase, most_tries, rank, search
from bertport.quantize.texts import read_evaluation
from bertport.runtime.errors import UsageError, ValidationError
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.measure.budget import Budget
    from bertport.measure.quality.results import Fidelity
    from bertport.quantize.graph.rewrite import Emitter
    from bertport.quantize.labelled import LabelledAccuracy
    from bertport.quantize.recipes.source import GraphSource
    from bertport.quantize.recipes.table import Recipe
    from bertport.quantize.search.evaluator import Evaluator
    from bertport.quantize.search.sensitivity import Layers, Measure
    from bertport.quantize.texts import Evaluation

    Target = Mapping[str, float]
    """The KL that each head of which a bound is broken may keep on the text for searching, by name of the head."""

__all__ = [
    "STABILITY",
    "BrokenBudgetError",
    "Solution",
    "by_more_samples",
    "emitter_of",
    "levels_of",
    "meet_budget",
    "rank_layers",
]

RANKING: dict[str, Any] = {"positions": 400, "pairs": 60, "sentences": 120}
"""Samples behind each row of the table: KL differs enough between layers to be told on few."""
SEARCHING: dict[str, Any] = {"positions": 1000, "pairs": 200, "sentences": 300}
"""Samples behind each combination of the search: KL to about a twentieth of itself."""
TARGETS = 4
"""Searches, each with a lower target, while what they find breaks the budget on held-out text; then all layers are
left in higher precision."""
STEP = 0.9
"""The share of KL that a further search may leave, at most: what little is missing may be the noise of either text."""
REACHABLE = 0.1
"""The share of what higher precision takes away in all layers together that the first search leaves at least, and each
further one half of it: near the end each further layer buys next to nothing."""
MORE = 3.0
"""Times as many held-out samples, at most, that are measured before a search which noise alone may have asked for: it
takes tens of times as long."""
STABILITY = 32
"""Texts of each kind on which batch invariance is measured."""


class BrokenBudgetError(ValidationError):
    """A variant that breaks its budget, and the nearest that was reached.

    Args:
        message: For the user.
        accuracy: What was measured of it.
        labelled: What was measured of it on labelled data; None where nothing was.
    """

    def __init__(self, message: str, accuracy: Fidelity, labelled: LabelledAccuracy | None = None) -> None:
        super().__init__(message)
        self.accuracy = accuracy
        self.labelled = labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A graph that meets the budget."""

    source: GraphSource
    """Source that it is made from."""
    accuracy: Fidelity
    """Its accuracy on the held-out text."""
    evaluation: Evaluation
    """The samples of that text."""
    layers: Layers | None
    """The table of the search; None where the plain recipe met the budget, or the time was up before."""
    search: dict[str, Any] | None = None
    """Record of the search; None where there was none."""
    labelled: LabelledAccuracy | None = None
    """Its accuracy on labelled data; None without such data."""


def meet_budget(
    evaluator: Evaluator, recipe: Recipe, source: GraphSource, budget: Budget, *, decides: bool = False
) -> Solution:
    """Return the graph of a recipe that meets a budget: the plain one, or one with layers in higher precision.

    Args:
        evaluator: Measures candidates.
        recipe: Makes them.
        source: What they are made from.
        budget: The budget.
        decides: Whether more samples are measured first where the plain recipe's figures break the budget and their
            intervals do not.

    Raises:
        BrokenBudgetError: when none does; the message tells how near the nearest came.
    """
    began = time.monotonic()
    graph = evaluator.make(recipe, source)
    plain = evaluator.accuracy(recipe, graph, evaluator.evaluation, stability=STABILITY)
    seconds = time.monotonic() - began
    labelled = evaluator.on_labelled(recipe, graph)
    whole = time.monotonic() - began
    if not budget.broken(plain) and not (labelled and labelled.broken):
        return Solution(source=source, accuracy=plain, evaluation=evaluator.evaluation, layers=None, labelled=labelled)
    times = budget.undecided(plain) if decides else {}
    if times and (more := by_more_samples(evaluator, recipe, graph, budget, times, seconds)):
        accuracy, evaluation = more
        return Solution(source=source, accuracy=accuracy, evaluation=evaluation, layers=None, labelled=labelled)
    del graph  # a search makes its own, and would hold this one in memory as well
    if recipe.emitter is None:
        raise _broken(recipe, budget, plain, "choose another recipe", labelled)
    search = _Search(evaluator, recipe, budget, plain, labelled, seconds=whole - seconds)
    try:
        solution = search.run(source)
    except TimeUpError:
        return search.cut_short()
    return dataclasses.replace(solution, layers=search.layers, search=search.record(cut=False))


def by_more_samples(  # noqa: PLR0913, PLR0917 — what `meet_budget` was given, and what it measured
    evaluator: Evaluator,
    recipe: Recipe,
    graph: bytes | str,
    budget: Budget,
    times: Mapping[str, float],
    seconds: float = 0.0,
) -> tuple[Fidelity, Evaluation] | None:
    """Measure the plain recipe on more held-out samples; return its accuracy and them where it then meets the budget.

    Args:
        evaluator: Measures the graph.
        recipe: The recipe.
        graph: The graph, of `Evaluator.make`, or the name of a variant.
        budget: The budget.
        times: How many times as many samples would decide, by name of the head.
        seconds: What measuring took before; without the time for more, nothing is measured.
    """
    larger = evaluator.enlarged({head: min(MORE, factor) for head, factor in times.items()})
    more = larger.evaluation.tokens / evaluator.evaluation.tokens
    if more <= 1 or more * seconds > evaluator.deadline.remaining:
        return None
    evaluator.progress(f"{recipe.name} breaks its budget by less than the noise, so more samples are measured", 0, 0)
    try:
        accuracy = larger.accuracy(recipe, graph, larger.evaluation, stability=STABILITY)
    except TimeUpError:
        return None
    if budget.broken(accuracy):
        return None
    return accuracy, larger.evaluation


class _Search:
    """A search for layers to leave in higher precision, and what it has reached so far.

    Args:
        evaluator: Measures candidates.
        recipe: Makes them.
        budget: The budget to meet.
        plain: What was measured of the plain recipe on held-out text.
        labelled: What was measured of it on labelled data; None where there is none.
        seconds: What that took.
    """

    def __init__(  # noqa: PLR0913 — what was measured of the plain recipe, beside what measures
        self,
        evaluator: Evaluator,
        recipe: Recipe,
        budget: Budget,
        plain: Fidelity,
        labelled: LabelledAccuracy | None = None,
        *,
        seconds: float = 0.0,
    ) -> None:
        self.evaluator, self.recipe, self.budget = evaluator, recipe, budget
        self.on_data = seconds
        """Seconds that measuring a combination on labelled data takes."""
        self.accuracy = plain
        """Accuracy on held-out text, as measured last."""
        self.searched = plain
        """Accuracy of the plain recipe on the text for searching, once that is measured."""
        self.labelled = labelled
        """Accuracy on labelled data of the latest combination that held-out text allows; None without data."""
        self.estimate = (0.0, 0.0)
        """Seconds that the search takes, from and to."""
        self.combinations = 0
        """Combinations of layers measured on held-out text, the plain recipe aside."""
        self.fallback: Solution | None = None
        """One that meets the budget, if not with the fewest layers."""
        self.layers: Layers | None = None
        """The table of layers."""

    def run(self, source: GraphSource) -> Solution:
        """Search one level of higher precision after the other.

        Raises:
            BrokenBudgetError: when no combination meets the budget.
            TimeUpError: when the time limit passes; what was reached stays in this object.
        """
        evaluator, recipe = self.evaluator, self.recipe
        levels = levels_of(recipe, source)
        samples = read_evaluation(evaluator.bundle, evaluator.calibration, sample="calibration", **SEARCHING)
        began = time.monotonic()
        plain = self.searched = evaluator.accuracy(recipe, evaluator.make(recipe, source), samples)
        shares = self.shares
        every = _names(recipe, source)
        spent = time.monotonic() - began
        least, most = _estimate(spent, len(every), samples, evaluator.evaluation, len(levels))
        self.estimate = (least + self.on_data, most + len(levels) * (TARGETS + 1) * self.on_data)
        span = " to ".join(map(format_duration, self.estimate))
        evaluator.progress(
            f"{recipe.name} breaks its budget, and the search for layers to keep in higher precision takes {span}", 0, 0
        )
        if evaluator.deadline.limit is not None:
            levels = self.secure_fallback(levels, every)
        layers = rank_layers(evaluator, recipe, levels[0], head=min(shares, key=lambda head: shares[head]))
        self.layers = layers
        for level in levels:
            solution = self.try_level(level, layers, samples, plain, first_target(plain, shares))
            if solution:
                return solution
        raise self.broken("with as many layers in higher precision as were tried: choose another recipe")

    @property
    def shares(self) -> dict[str, float]:
        """The share of its distance from fp32 that each head may keep, by what was measured last.

        A head that the text for searching tells nothing of, such as one for pairs of sentences where each of its lines
        is one sentence, is brought nearer by way of the hidden states.
        """
        shares: dict[str, float] = {}
        broken = [self.budget.shares(self.accuracy), self.labelled.shares if self.labelled else {}]
        for head, share in (item for each in broken for item in each.items()):
            known = head if self.searched.heads.get(head) else HIDDEN
            shares[known] = min(share, shares.get(known, 1.0))
        return shares

    def broken(self, advice: str) -> BrokenBudgetError:
        """Return the error of a variant that breaks its budget, by what was measured last."""
        return _broken(self.recipe, self.budget, self.accuracy, advice, self.labelled)

    def try_level(
        self, level: GraphSource, layers: Layers, samples: Evaluation, plain: Fidelity, target: Target
    ) -> Solution | None:
        """Search with lower and lower targets, and at last take all layers; return what meets the budget.

        Args:
            level: What graphs are made from, with the precision that single layers get.
            layers: The ranked table.
            samples: Samples of the text for searching.
            plain: What was measured of the plain recipe on it.
            target: The first target.
        """
        every = frozenset(layer.name for layer in layers.rows)
        measure: Measure = cache(partial(self.with_higher, level, samples))
        # What remains with all layers in this precision is beyond any search.
        floor = {head: kl_increase(measure(every), head) for head, figures in plain.heads.items() if figures}
        tried: list[frozenset[str]] = []
        while every not in tried:
            chosen = every
            if len(tried) < TARGETS:
                within = partial(_within, reachable(target, plain, floor, attempt=len(tried)))
                chosen = search(layers, within, measure, progress=self.evaluator.progress).higher
            if chosen in tried:
                chosen = every
            tried.append(chosen)
            solution = self.on_held_out(dataclasses.replace(level, high_precision_layers=chosen))
            if solution:
                return solution
            target = {**target, **tightened(measure(chosen), self.shares)}
        return None

    def with_higher(self, level: GraphSource, samples: Evaluation, layers: frozenset[str]) -> Fidelity:
        """Measure the graph with some layers in higher precision."""
        source = dataclasses.replace(level, high_precision_layers=layers)
        return self.evaluator.accuracy(self.recipe, self.evaluator.make(self.recipe, source), samples)

    def on_held_out(self, source: GraphSource) -> Solution | None:
        """Measure a combination on held-out text and on labelled data; return it where it meets the budget."""
        graph = self.evaluator.make(self.recipe, source)
        accuracy = self.evaluator.accuracy(self.recipe, graph, self.evaluator.evaluation, stability=STABILITY)
        broken = bool(self.budget.broken(accuracy))
        labelled = None if broken else self.evaluator.on_labelled(self.recipe, graph)
        # Both at once: where the time is up between them, what was measured before still says why the budget is broken.
        self.accuracy, self.labelled = accuracy, labelled
        self.combinations += 1
        if broken or (labelled and labelled.broken):
            return None
        return Solution(
            source=source,
            accuracy=accuracy,
            evaluation=self.evaluator.evaluation,
            layers=None,
            labelled=labelled,
        )

    def secure_fallback(self, levels: list[GraphSource], every: frozenset[str]) -> list[GraphSource]:
        """Find what can be written when the time is up: all layers in higher precision.

        Returns:
            The levels from the first on at which all layers meet the budget.
        """
        for index, level in enumerate(levels):
            self.fallback = self.on_held_out(dataclasses.replace(level, high_precision_layers=every))
            if self.fallback:
                return levels[index:]
        raise self.broken("with all layers in higher precision: choose another recipe")

    def cut_short(self) -> Solution:
        """Return what can be written once the time is up.

        Raises:
            BrokenBudgetError: when nothing met the budget by then.
        """
        deadline = self.evaluator.deadline
        if self.fallback:
            return dataclasses.replace(self.fallback, layers=self.layers, search=self.record(cut=True))
        limit = format_duration(deadline.limit or 0)
        advice = f"and the time limit of {limit} passed before a combination that meets it was found: give more time"
        raise self.broken(advice) from None

    def record(self, *, cut: bool) -> dict[str, Any]:
        """Return what a manifest says of the search."""
        return {
            "estimated_seconds": [round(seconds, 1) for seconds in self.estimate],
            "combinations_on_held_out_text": self.combinations,
            "time_limit_seconds": self.evaluator.deadline.limit,
            "cut": cut,
        }


def first_target(plain: Fidelity, shares: Mapping[str, float]) -> dict[str, float]:
    """Return the target that follows from the breach on held-out text.

    Args:
        plain: What was measured of the plain recipe on the text for searching.
        shares: The share of its KL that each head may keep, of those of which a bound is broken.
    """
    return {head: kl_increase(plain, head) * share for head, share in shares.items()}


def tightened(accuracy: Fidelity, shares: Mapping[str, float]) -> dict[str, float]:
    """Return a lower target, for the heads of which a bound is broken still.

    Args:
        accuracy: What was measured of the last combination on the text for searching.
        shares: As in `first_target`, by the breach of that combination.
    """
    return {head: kl_increase(accuracy, head) * min(share, STEP) for head, share in shares.items()}


def reachable(target: Target, plain: Fidelity, floor: Mapping[str, float], *, attempt: int) -> dict[str, float]:
    """Return a target, raised where it is below what the search can be expected to reach.

    Args:
        target: The target.
        plain: What was measured of the plain recipe on the text for searching.
        floor: KL of each head with all layers in higher precision.
        attempt: The number of the search, from 0; each further one may aim nearer to the floor.
    """
    left = REACHABLE / 2**attempt
    return {
        head: max(bound, floor[head] + left * (kl_increase(plain, head) - floor[head]))
        for head, bound in target.items()
    }


def _within(target: Target, accuracy: Fidelity) -> bool:
    """Return whether no head is farther from fp32 than its target."""
    return all(kl_increase(accuracy, head) <= bound for head, bound in target.items())


def _names(recipe: Recipe, source: GraphSource) -> frozenset[str]:
    """Return the names of a recipe's layers."""
    return frozenset(layer.name for layer in linears(recipe.graph(source)))


def _estimate(
    seconds: float, layers: int, samples: Evaluation, held_out: Evaluation, levels: int
) -> tuple[float, float]:
    """Return how many seconds a search takes, from and to, by what one measurement on its text took."""
    ranking = seconds * min(1.0, RANKING["positions"] / SEARCHING["positions"]) * (layers + 2)
    once = seconds * held_out.tokens / max(1, samples.tokens)
    least = ranking + seconds * math.ceil(math.log2(layers + 1)) + once
    return least, ranking + levels * (TARGETS * most_tries(layers) * seconds + (TARGETS + 1) * once)


def levels_of(recipe: Recipe, source: GraphSource) -> list[GraphSource]:
    """Return what graphs are made from, one for each precision above 8 bits, the faster one first."""
    # Two products in 8 bits are faster than one in float32 only where one is more than twice as fast: not on AVX2.
    isa = source.instruction_set if recipe.by_instruction_set else INSTRUCTION_SETS.get(cpu().instruction_set)
    int16 = recipe.int16_activations and not saturates(isa)
    return [dataclasses.replace(source, float_fallback=fallback) for fallback in ((False, True) if int16 else (True,))]


def rank_layers(evaluator: Evaluator, recipe: Recipe, source: GraphSource, *, head: str | None = None) -> Layers:
    """Make the table of a recipe's layers, on the text for searching.

    Args:
        evaluator: Measures the graphs.
        recipe: The recipe.
        source: What its graphs are made from.
        head: The head whose KL ranks the layers, as in `kl_increase`.
    """
    emitter = emitter_of(recipe)
    samples = read_evaluation(evaluator.bundle, evaluator.calibration, sample="calibration", **RANKING)
    layers = linears(recipe.graph(source))

    def with_higher(names: frozenset[str]) -> GraphSource:
        return dataclasses.replace(source, high_precision_layers=names)

    return rank(
        {layer.name: layer.weights.shape for layer in layers},
        saved_milliseconds(layers, lambda names: emitter(with_higher(names)), progress=evaluator.progress),
        lambda names: evaluator.accuracy(recipe, evaluator.make(recipe, with_higher(names)), samples),
        head=head,
        text=samples.to_json(),
        machine=cpu().instruction_set,
        progress=evaluator.progress,
    )


def emitter_of(recipe: Recipe) -> Callable[[GraphSource], Emitter]:
    """Return what writes a recipe's layers.

    Raises:
        UsageError: for a recipe that changes the graph as a whole, or not at all.
    """
    if recipe.emitter is None:
        raise UsageError(f"{recipe.name} has no layers to rank: choose one of {', '.join(searchable())}")
    return recipe.emitter


def _broken(
    recipe: Recipe, budget: Budget, accuracy: Fidelity, advice: str, labelled: LabelledAccuracy | None = None
) -> BrokenBudgetError:
    """Return the error of a variant that breaks its budget."""
    heads = budget.shares(accuracy)
    doubts = [doubt for head in heads if (figures := accuracy.heads[head]) for doubt in figures.doubts]
    reasons = "; ".join((*budget.broken(accuracy), *(labelled.broken if labelled else ()), *doubts))
    return BrokenBudgetError(
        f"{recipe.name} breaks the accuracy budget {budget} ({reasons}), {advice}, or give a wider --accuracy-budget; "
        "it was not added",
        accuracy,
        labelled,
    )
