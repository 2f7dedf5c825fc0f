"""The quality of one variant: per head against the reference, on as many samples as a verdict on the budget needs.

Samples are looked at twice at most: those of the preset, and then, where they leave a bound undecided, all that the
preset allows. A bound that the first look decides by its interval of 95% is not taken as decided yet, for then the two
looks together would err more often than one: it has to be decided by one of 99.9% (Haybittle 1971, Peto et al. 1976),
which adds next to nothing to the errors of the last look, whose interval of 95% is the one that is shown and judged by.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.compare.codec import encode_object
from bertport.compare.measurements import Quality, QualityStep
from bertport.measure.budget import beyond_doubt, judge_all
from bertport.measure.quality.fidelity import measure
from bertport.measure.quality.heads import HEADS, limit_named, sample_kinds
from bertport.measure.quality.model import CachedModel, conventions, graph_of, read_sample_tokenizer, streams
from bertport.measure.quality.samples import (
    GIVEN_PAIRS,
    PAIRED,
    PLAIN,
    REPLACED,
    masked_samples,
    pair_samples,
    replaced_samples,
)
from bertport.measure.quality.task_samples import GROUPS, task_samples
from bertport.measure.statistics import Settings
from bertport.runtime import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bertport.compare.codec import JSON
    from bertport.compare.entries import ComparedBundle, Entry
    from bertport.compare.measurements import Sums
    from bertport.compare.presets import Preset
    from bertport.measure.quality.accumulator import Accumulator
    from bertport.measure.quality.model import Graph
    from bertport.measure.quality.samples import Sample
    from bertport.measure.text import Text

__all__ = ["LONGEST", "SMALL", "QualityBench", "Samples", "further", "samples_for"]

LONGEST = 128
"""Tokens of the longest sample: a length that encoders are pretrained on, and that is measured in minutes."""
CPU = "cpu"
ROWS: dict[str, Callable[[Sample], float]] = {
    "positions": lambda sample: len(sample.positions),
    "tokens": lambda sample: len(sample.input_ids),
    "questions": lambda sample: 1 / GROUPS.get(sample.kind, 1),
    "queries": lambda sample: 1 / GROUPS.get(sample.kind, 1),
}
"""Weight of a sample in what a bound is judged by, by the unit of the bound; 1 for other units."""
SENTENCE = 4
"""Masked words of a sentence, about: so many positions are as much work as one sentence."""
SMALL = 2_000_000
"""Parameters below which one thread is faster than two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples that quality is measured on: masked texts and pairs, for the first look and for the second."""

    first: tuple[Sample, ...]
    """Samples of the first look, as many as the preset takes."""
    masked: tuple[Sample, ...] = ()
    """More masked texts."""
    replaced: tuple[Sample, ...] = ()
    """More texts with replaced tokens."""
    pairs: tuple[Sample, ...] = ()
    """More pairs."""
    tasks: tuple[Sample, ...] = ()
    """More samples for heads that are trained for a task."""

    def more(self, kinds: frozenset[str]) -> tuple[Sample, ...]:
        """Return those of some kinds for the second look."""
        every = (*self.masked, *self.replaced, *self.pairs, *self.tasks)
        return tuple(sample for sample in every if sample.kind in kinds)


def samples_for(
    compared: ComparedBundle, texts: Sequence[Text], preset: Preset, seed: int, *, whole: bool = False
) -> Samples:
    """Make texts and pairs for the heads that a bundle has.

    Args:
        compared: The bundle.
        texts: What they are made of.
        preset: How many.
        seed: The same seed, texts and bundle give the same samples.
        whole: Whether each text is one input of a task as it stands, and not each sentence of it.
    """
    tokenizer, manifest = read_sample_tokenizer(compared.bundle), compared.bundle.manifest
    kinds = sample_kinds(manifest, texts)
    longest = min(LONGEST, manifest.max_length)
    most = max(preset.positions, preset.most_positions)
    # Without the MLM head they still show the hidden states.
    masked = list(masked_samples(texts, tokenizer, seed=seed, max_tokens=longest, limit=most))
    first = _until(masked, preset.positions)
    replaced: list[Sample] = []
    if REPLACED in kinds:
        replaced = list(replaced_samples(texts, tokenizer, seed=seed, max_tokens=longest, limit=most))
    begun = _until(replaced, preset.positions)
    pairs: list[Sample] = []
    chosen: set[int] = set()
    for kind in PAIRED:
        if kind in kinds and preset.pairs:
            limit = max(preset.pairs, preset.most_pairs)
            made = list(pair_samples(texts, tokenizer, kind=kind, seed=seed, max_tokens=longest, limit=limit))
            chosen |= {len(pairs) + index for index in _balanced(made, preset.pairs)}
            pairs += made
    tasks = task_samples(
        kinds,
        texts,
        tokenizer,
        seed=seed,
        max_tokens=longest,
        longest_pair=longest,
        positions=most // SENTENCE,
        pairs=max(preset.pairs, preset.most_pairs),
        whole=whole,
    )
    sentences = preset.positions // SENTENCE
    asked, rest = _parted(tasks, {PLAIN: sentences, GIVEN_PAIRS: sentences}, preset.pairs)
    return Samples(
        first=(
            *masked[:first],
            *replaced[:begun],
            *(pair for index, pair in enumerate(pairs) if index in chosen),
            *asked,
        ),
        masked=tuple(masked[first:]),
        replaced=tuple(replaced[begun:]),
        pairs=tuple(pair for index, pair in enumerate(pairs) if index not in chosen),
        tasks=rest,
    )


def _parted(
    samples: Sequence[Sample], counts: Mapping[str, int], others: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return the first samples of each kind, and the rest; no group of one question is cut in two.

    Args:
        samples: Of several kinds, those of a group side by side.
        counts: How many of some kinds.
        others: How many of every other kind, about.
    """
    begun: Counter[tuple[str, int]] = Counter()
    taken: Counter[str] = Counter()
    first, rest = [], []
    for number, sample in enumerate(samples):
        group = (sample.kind, sample.group if sample.kind in GROUPS else number)
        room = taken[sample.kind] < max(1, counts.get(sample.kind, others))
        if begun[group] or room:
            begun[group] += 1
            taken[sample.kind] += 1
            first.append(sample)
        else:
            rest.append(sample)
    return tuple(first), tuple(rest)


def _until(samples: Sequence[Sample], positions: int) -> int:
    """Return how many samples have this number of masked or replaced tokens; a text is not cut in two."""
    chosen = 0
    for number, sample in enumerate(samples):
        if chosen >= positions and sample.text != samples[number - 1].text:
            return number
        chosen += sample.chosen
    return len(samples)


def _balanced(pairs: Sequence[Sample], count: int) -> list[int]:
    """Return the places of the first pairs, as many of each label."""
    by_label = [[index for index, pair in enumerate(pairs) if pair.label == label] for label in (0, 1)]
    sizes = (count - count // 2, count // 2)
    return [index for places, size in zip(by_label, sizes, strict=True) for index in places[:size]]


class QualityBench:
    """Measurement of a bundle's variants, one after the other; the reference's answers are kept.

    Args:
        compared: The bundle.
        reference: Its row that is taken as right.
        samples: From `samples_for`.
        preset: How much to measure.
        seed: Of the resamples.
        bounds: The budget, for the verdicts on which more is measured where that is needed.
    """

    def __init__(  # noqa: PLR0913 — what it is made of
        self,
        compared: ComparedBundle,
        reference: Entry,
        samples: Samples,
        preset: Preset,
        *,
        seed: int = 0,
        bounds: Mapping[str, float] | None = None,
    ) -> None:
        self._compared, self._reference, self._samples = compared, reference, samples
        self._bounds = dict(bounds or {})
        self._preset, self._settings = preset, Settings(seed=seed)
        self._kept: Graph | None = None

    def open(self, entry: Entry, *, at_once: int = 1) -> Graph:
        """Open a variant as it serves; with one thread where several samples run at once."""
        threads = entry.spec.threads
        small = self._compared.bundle.manifest.architecture.parameters < SMALL
        if threads is None and (small or at_once > 1):
            threads = 1
        return graph_of(
            load(
                self._compared.bundle.path,
                variant=entry.variant,
                provider=entry.provider,
                provider_library=entry.spec.provider_library,
                threads=threads,
            )
        )

    def reference(self) -> Graph:
        """Return the reference, opened once."""
        if self._kept is None:
            self._kept = CachedModel(self.open(self._reference, at_once=self._at_once(self._reference)))
        return self._kept

    def _at_once(self, entry: Entry) -> int:
        """Return how many samples to run at once: 1 where threads were asked for, or not both are on the CPU."""
        entries = (entry, self._reference)
        return streams() if all(each.spec.threads is None and each.provider == CPU for each in entries) else 1

    def quality(
        self, entry: Entry, progress: Callable[[int, int], None], *, decided: Iterable[str] = ()
    ) -> QualityStep:
        """Measure a variant against the reference; the reference against itself, for its own accuracy.

        Args:
            entry: The variant.
            progress: Called with the number of samples done and the number of all.
            decided: Names of the bounds that need no verdict of this run.
        """
        itself = entry == self._reference
        at_once = self._at_once(entry)
        candidate = self.reference() if itself else self.open(entry, at_once=at_once)
        began = time.monotonic()
        first, sums = self._measure(candidate, self._samples.first, self._preset.stability, at_once, progress)
        seconds = (time.monotonic() - began) / len(self._samples.first)
        bounds = {} if itself else {name: bound for name, bound in self._bounds.items() if name not in set(decided)}
        more = further(self._samples, encode_object(first), bounds)
        every = (*self._samples.first, *more)
        if not more or seconds * len(every) > self._preset.patience:
            return QualityStep(fidelity=first, per_text=sums, looks=1)
        second, sums = self._measure(candidate, every, 0, at_once, progress)
        return QualityStep(fidelity=dataclasses.replace(second, stability=first.stability), per_text=sums, looks=2)

    def _measure(
        self,
        candidate: Graph,
        samples: Sequence[Sample],
        stability: int,
        at_once: int,
        progress: Callable[[int, int], None],
    ) -> tuple[Quality, Sums]:
        accumulated: list[Accumulator] = []
        fidelity = measure(
            self.reference(),
            candidate,
            samples,
            settings=self._settings,
            conventions=conventions(self._compared.bundle),
            stability=stability,
            streams=at_once,
            progress=progress,
            accumulated=accumulated.append,
        )
        [accumulator] = accumulated
        quality = Quality(
            samples=fidelity.samples,
            seed=fidelity.seed,
            resamples=fidelity.resamples,
            confidence=fidelity.confidence,
            heads=fidelity.heads,
            stability=fidelity.stability,
        )
        return quality, {head: tuple(sums) for head, sums in accumulator.per_text().items()}


def _one(_: Sample) -> float:
    return 1.0


def further(samples: Samples, accuracy: Mapping[str, JSON], bounds: Mapping[str, float]) -> tuple[Sample, ...]:
    """Return the samples that may decide the bounds that are open after the first look; none where nothing would."""
    kinds: frozenset[str] = frozenset()
    for name, judgement in judge_all(bounds, accuracy).items():
        limit = limit_named(name)
        asked = frozenset(kind for kind in HEADS[limit.path[0]].samples if (kind in PAIRED) is (limit.unit == "pairs"))
        left = sum(ROWS.get(limit.unit, _one)(sample) for sample in samples.more(asked))
        if judgement.more is not None and judgement.more <= left and not beyond_doubt(limit, bounds[name], judgement):
            kinds |= asked
    return samples.more(kinds)
