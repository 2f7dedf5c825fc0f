"""The evaluator: makes candidate graphs of a bundle, and measures each against fp32."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.samples import KINDS, OF_TWO
from bertport.quantize.deadline import Deadline
from bertport.quantize.evaluation import REFERENCE, evaluate
from bertport.quantize.texts import read_evaluation

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from bertport.measure.quality.model import Graph
    from bertport.measure.quality.results import Fidelity
    from bertport.quantize.deadline import Progress
    from bertport.quantize.labelled import LabelledAccuracy, LabelledJudge
    from bertport.quantize.recipes.source import GraphSource
    from bertport.quantize.recipes.table import Recipe
    from bertport.quantize.texts import Evaluation
    from bertport.runtime.bundle.directory import Bundle

__all__ = ["Evaluator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Evaluator of a bundle's candidates: measures their accuracy against the fp32 serving graph."""

    bundle: Bundle
    """The bundle."""
    reference: Graph
    """Its fp32 serving graph."""
    evaluation: Evaluation
    """Held-out samples, which decide."""
    text: str | os.PathLike[str] | None
    """The file that they are from; None for the sample that ships."""
    calibration: str | os.PathLike[str] | None
    """Text for searching; None for the sample that ships."""
    progress: Progress
    """Told of what is done."""
    provider: str = "cpu"
    """Short name of the provider that candidates run on."""
    deadline: Deadline = field(default_factory=Deadline)
    """Deadline of the search."""
    judge: LabelledJudge | None = None
    """Judges candidates by labelled data as well; None where there is none."""

    def enlarged(self, times: Mapping[str, float]) -> Evaluator:
        """Return an evaluator with more held-out samples, as far as the text gives them.

        Args:
            times: How many times as many, by name of the head that they are for.
        """
        known = self.evaluation
        paired = Counter(sample.kind for sample in known.samples if sample.kind in OF_TWO)
        texts, pairs = (
            max((factor for head, factor in times.items() if HEADS[head].samples & kinds), default=1.0)
            for kinds in (set(KINDS) - OF_TWO, OF_TWO)
        )
        evaluation = read_evaluation(
            self.bundle,
            self.text,
            sample="evaluation",
            positions=math.ceil(texts * known.positions),
            pairs=math.ceil(pairs * max(paired.values(), default=0)),
        )
        return replace(self, evaluation=evaluation)

    @staticmethod
    def make(recipe: Recipe, source: GraphSource) -> bytes | str:
        """Return the graph that a recipe makes, in memory; the name of fp32 for one that shares its.

        Args:
            recipe: Makes the graph.
            source: What it is made from.
        """
        if recipe.shares_fp32:
            return REFERENCE
        graph: bytes = recipe.make(source).SerializeToString()
        return graph

    def accuracy(self, recipe: Recipe, graph: bytes | str, samples: Evaluation, *, stability: int = 0) -> Fidelity:
        """Measure the accuracy of a graph.

        Args:
            recipe: What made the graph.
            graph: The graph, of `make`.
            samples: What to measure on.
            stability: Samples on which to measure batch invariance; the search, which has none, reports its own steps.
        """
        return evaluate(
            self.bundle,
            self.reference,
            graph,
            samples,
            stability=stability,
            progress=self.progress if stability else self.deadline.watching(_silent),
            provider=self.provider,
            precision=recipe.precision,
            exact=self.provider not in recipe.providers,
        )

    def on_labelled(self, recipe: Recipe, graph: bytes | str) -> LabelledAccuracy | None:
        """Measure a graph on the labelled data; None where there is none.

        Args:
            recipe: What made the graph.
            graph: The graph, of `make`.
        """
        if self.judge is None:
            return None
        return self.judge.measure(
            self.bundle,
            graph,
            progress=self.deadline.watching(self.progress),
            name=recipe.name,
            provider=self.provider,
            precision=recipe.precision,
            exact=self.provider not in recipe.providers,
        )


def _silent(stage: str, done: int, count: int) -> None:
    """Report nothing."""
