"""Distillation of a variant: training on the calibration text, and the paired test on held-out text that decides."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.quality.model import in_order, make_batch, open_onnx, streams
from bertport.measure.statistics import paired_difference
from bertport.quantize.distillation.distances import Distances
from bertport.quantize.distillation.training import TEXTS, train_vectors
from bertport.quantize.evaluation import AS_DEFINED, REFERENCE
from bertport.quantize.texts import read_evaluation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bertport.measure.quality.model import Graph
    from bertport.measure.quality.samples import Sample
    from bertport.measure.statistics import Difference
    from bertport.quantize.recipes.source import GraphSource
    from bertport.quantize.recipes.table import Recipe
    from bertport.quantize.search.evaluator import Evaluator
    from bertport.quantize.texts import Evaluation

    Sums = dict[str, dict[int, tuple[float, int]]]
    """By row of the table of heads and number of the text: the sum of the distances, and how many they are."""

__all__ = ["Distillation", "distill", "helps"]

SEED = 0
"""Seed of the order in which texts are trained on."""
MASKS = 8
"""Masked positions of a text, about: so many are read for each text that is trained on."""
PAIRS = 8
"""One pair for so many texts, where a head judges pairs: it has one answer where a masked text has many."""
JUDGED = 400
"""Held-out samples of a kind by which the test decides, at most: distances of single texts, unlike answers that
change, are told apart on few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """What training gave."""

    source: GraphSource
    """The graph source with trained vectors, kept or not."""
    kept: bool
    """Whether held-out text shows it to be nearer to fp32."""
    record: dict[str, Any]
    """What the manifest says of it."""


def distill(evaluator: Evaluator, recipe: Recipe, source: GraphSource, *, steps: int, seed: int = SEED) -> Distillation:
    """Train the vectors of a recipe's graph, and tell by held-out text whether that helps.

    Args:
        evaluator: Knows the bundle, the texts and the provider.
        recipe: Makes the graph.
        source: What it is made from.
        steps: Batches to train on.
        seed: Of their order.

    Raises:
        UsageError: for an operator that torch is not known to compute.
        InputTextError, PathError: for a text that cannot be used.
    """
    began = time.monotonic()
    bundle, text = evaluator.bundle, _read(evaluator, steps * TEXTS)
    with bundle.opening(REFERENCE) as path:
        reference = open_onnx(path, threads=1)
    distances = Distances(bundle.manifest.heads, reference.outputs)
    vectors = train_vectors(
        recipe.make(source),
        reference,
        text.samples,
        distances,
        steps=steps,
        seed=seed,
        progress=evaluator.progress,
    )
    trained = dataclasses.replace(source, vectors=vectors)
    judged = list(_first(evaluator.evaluation.samples))
    evaluator.progress("comparing with what was trained", 0, 0)
    before, after = (_sums(reference, _opened(evaluator, recipe, one), judged, distances) for one in (source, trained))
    paired = {name: _paired(before[name], after[name]) for name in before}
    kept = helps(paired.values())
    record = {
        "steps": steps,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "text": {"name": text.name, "sha256": text.sha256, "samples": len(text.samples)},
        "trained": sum(value.size for value in vectors.values()),
        "judged_on": {
            "name": evaluator.evaluation.name,
            "sha256": evaluator.evaluation.sha256,
            "samples": len(judged),
        },
        "distances": {
            name: {"before": _mean(before[name]), "after": _mean(after[name]), **dataclasses.asdict(paired[name])}
            for name in before
        },
        "kept": kept,
    }
    return Distillation(source=trained, kept=kept, record=record)


def _read(evaluator: Evaluator, texts: int) -> Evaluation:
    """Read as much of the calibration text as is trained on."""
    return read_evaluation(
        evaluator.bundle,
        evaluator.calibration,
        sample="calibration",
        as_read=True,
        positions=MASKS * texts,
        pairs=math.ceil(texts / PAIRS),
        sentences=math.ceil(texts / 2),  # of which as many again are read for a bundle that fills in no masks
    )


def helps(differences: Iterable[Difference]) -> bool:
    """Tell whether training helps: some distance is shown to be smaller, and none to be larger.

    Args:
        differences: Of the heads' distances, after minus before.
    """
    intervals = [each.difference for each in differences]
    return any(each.high < 0 for each in intervals) and not any(each.low > 0 for each in intervals)


def _first(samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield the first samples of each kind, as many as decide."""
    seen: Counter[str] = Counter()
    for sample in samples:
        seen[sample.kind] += 1
        if seen[sample.kind] <= JUDGED:
            yield sample


def _opened(evaluator: Evaluator, recipe: Recipe, source: GraphSource) -> Graph:
    """Open the graph of a source on the provider that it is measured on, as `evaluate` does."""
    graph = evaluator.make(recipe, source)
    config = AS_DEFINED if evaluator.provider not in recipe.providers else {}
    threads = 1 if evaluator.provider == "cpu" else None
    return open_onnx(graph, provider=evaluator.provider, precision=recipe.precision, threads=threads, config=config)


def _sums(reference: Graph, candidate: Graph, samples: Sequence[Sample], distances: Distances) -> Sums:
    """Return the distances of a graph from fp32, each sample alone."""
    import torch

    def compare(sample: Sample) -> tuple[int, Mapping[str, tuple[float, int]]]:
        fed, names = make_batch([sample]), distances.outputs([sample])
        right, found = (
            {name: torch.from_numpy(np.array(value)) for name, value in graph.run(fed, names).items()}
            for graph in (reference, candidate)
        )
        values = distances.between(right, found, [sample], torch.from_numpy(fed.attention_mask).bool())
        return sample.text, {name: (float(value.double().sum()), value.numel()) for name, value in values.items()}

    sums: Sums = defaultdict(dict)
    for text, measured in in_order(compare, samples, streams()):
        for name, (total, count) in measured.items():
            known = sums[name].get(text, (0.0, 0))
            sums[name][text] = known[0] + total, known[1] + count
    return dict(sums)


def _mean(by_text: Mapping[int, tuple[float, int]]) -> float:
    totals = np.array(list(by_text.values()))
    return float(totals[:, 0].sum() / totals[:, 1].sum())


def _paired(before: Mapping[int, tuple[float, int]], after: Mapping[int, tuple[float, int]]) -> Difference:
    """Return the difference of a distance over the same texts, after minus before, with its interval."""
    texts = sorted(before)
    one, two = (np.array([sums[text] for text in texts]) for sums in (after, before))
    return paired_difference(one[:, 0], two[:, 0], two[:, 1])
