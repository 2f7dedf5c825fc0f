"""Fidelity: how far a variant is from fp32, per head, on real text, with intervals."""

from __future__ import annotations

import dataclasses
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.quality.accumulator import Accumulator
from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.model import Batch, Graph, in_order, make_batch
from bertport.measure.quality.results import BatchInvariance, Conventions, Fidelity
from bertport.measure.quality.samples import KINDS
from bertport.measure.statistics import Settings
from bertport.runtime.errors import UsageError, ValidationError
from bertport.runtime.heads import HIDDEN_STATES, decoded_outputs, is_per_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bertport.measure.quality.accumulator import SampleMetrics
    from bertport.measure.quality.model import Outputs
    from bertport.measure.quality.samples import Sample

__all__ = ["measure", "measure_batch_invariance"]


def measure(  # noqa: PLR0913 — one call measures everything; what is rarely changed is by keyword
    reference: Graph,
    candidate: Graph,
    samples: Iterable[Sample],
    *,
    settings: Settings | None = None,
    conventions: Conventions | None = None,
    stability: int = 64,
    streams: int = 1,
    tokens: int = 0,
    progress: Callable[[int, int], None] | None = None,
    accumulated: Callable[[Accumulator], None] | None = None,
) -> Fidelity:
    """Measure a candidate against a reference, usually the fp32 variant, one batch of samples at a time.

    Each sample runs alone unless `tokens` says otherwise, so that no figure depends on the others or on the order; the
    logits of one batch are held at a time.

    Args:
        reference: The model that is taken as right.
        candidate: The model under test.
        samples: From `samples.masked_samples`, `samples.pair_samples` and the like, in any order.
        settings: Seed, resamples and confidence level.
        conventions: The model's maximum length, padding id and heads.
        stability: Samples of each kind on which to measure batch invariance, and the effect of padding; 0 for none.
        streams: Batches that run at once; the graphs' sessions then have one thread each.
        tokens: Samples of one length run as one batch, without padding, of this many tokens at most. For two graphs
            whose answers do not depend on batch mates; what others answer would be another figure.
        progress: Called with the number of samples done and the number of all.
        accumulated: Given the sums per text that the figures were drawn from.

    Raises:
        UsageError: when there are no samples, or the graphs share no output that a sample asks for.
        ValidationError: when an output is not a finite number.
    """
    settings, conventions = settings or Settings(), conventions or Conventions()
    samples = list(samples)
    accumulator = Accumulator(conventions.heads)

    def metrics(numbers: list[int]) -> dict[int, SampleMetrics | None]:
        mates = [samples[number] for number in numbers]
        names = _outputs_for(mates[0], reference, candidate)
        if not names:
            return dict.fromkeys(numbers)
        batch = make_batch(mates)
        answers = _run(reference, batch, names, "reference"), _run(candidate, batch, names, "candidate")
        decoded = accumulate((len(sample.positions) for sample in mates[:-1]), initial=0)
        return {
            number: accumulator.compare(sample, *(_row(outputs, names, row, begin, sample) for outputs in answers))
            for row, (number, sample, begin) in enumerate(zip(numbers, mates, decoded, strict=True))
        }

    # Sums are rounded, so the metrics are added in the order of the samples, whatever the batches were.
    waiting: dict[int, SampleMetrics | None] = {}
    done = 0
    for compared in in_order(metrics, _of_one_length(samples, tokens), streams):
        waiting |= compared
        while done in waiting:
            if sample_metrics := waiting.pop(done):
                accumulator.add(sample_metrics)
            done += 1
        if progress:
            progress(done + len(waiting), len(samples))
    if not accumulator.measured:
        raise UsageError(
            f"nothing to measure: {len(samples)} samples, and the graphs give {', '.join(reference.outputs)} "
            f"and {', '.join(candidate.outputs)}: give more text, or graphs with a common head"
        )
    if accumulated:
        accumulated(accumulator)
    return Fidelity(
        samples=len(samples),
        seed=settings.seed,
        resamples=settings.resamples,
        confidence=settings.confidence,
        heads=accumulator.heads(settings),
        stability=measure_batch_invariance(
            candidate, samples, limit=stability, settings=settings, conventions=conventions, streams=streams
        )
        if stability
        else None,
    )


def measure_batch_invariance(  # noqa: PLR0913 — as above
    model: Graph,
    samples: Sequence[Sample],
    *,
    limit: int = 64,
    rows: int = 8,
    settings: Settings | None = None,
    conventions: Conventions | None = None,
    streams: int = 1,
) -> BatchInvariance | None:
    """Measure how a model's answers move with batch mates and with padding.

    Texts of about one length are each other's mates: those of a batch are repeated from their beginning up to its
    longest, so that no padding comes with it, and each answers alone, among the others, and with padding.

    Args:
        model: The model under test.
        samples: Texts to choose from, evenly; as `measure` takes them.
        limit: The most samples of each kind to run.
        rows: Rows of the batch with mates.
        settings: Seed, resamples and confidence level.
        conventions: The model's maximum length, padding id and heads.
        streams: Runs at once, as in `measure`.

    Returns:
        None when no sample asks for an output that the model gives.
    """
    settings, conventions = settings or Settings(), conventions or Conventions()
    kinds = [[sample for sample in samples if sample.kind == kind] for kind in KINDS]
    chosen = [kind[index] for kind in kinds for index in _evenly(len(kind), limit)]
    mates, padded = Accumulator(conventions.heads), Accumulator(conventions.heads)
    for with_mates, with_padding in in_order(
        partial(_moved, model, mates, conventions), _batches(chosen, rows, settings.seed), streams
    ):
        for metrics in with_mates:
            mates.add(metrics)
        for metrics in with_padding:
            padded.add(metrics)
    if not mates.measured:
        return None
    return BatchInvariance(
        texts=mates.measured,
        rows=rows,
        batch_mates=mates.movement(settings),
        padding=padded.movement(settings) if padded.measured else None,
    )


def _of_one_length(samples: Sequence[Sample], tokens: int) -> list[list[int]]:
    """Group samples that may run as one batch: of one length, and measured on the same outputs.

    Returns:
        Their numbers, ascending within a group, the groups in the order of their first ones. A group has at most
        `tokens` tokens, or a single sample.
    """
    groups: list[list[int]] = []
    latest: dict[tuple[int, str, bool], list[int]] = {}
    for number, sample in enumerate(samples):
        length = len(sample.input_ids)
        kind = (length, sample.kind, len(sample.positions) > 0)
        group = latest.get(kind)
        if group is None or (len(group) + 1) * length > tokens:
            group = latest[kind] = []
            groups.append(group)
        group.append(number)
    return groups


def _batches(chosen: Sequence[Sample], rows: int, seed: int) -> Iterator[tuple[list[Sample], int]]:
    """Yield batches of samples of one length, and how many of each count: the last one is filled up with others."""
    order = sorted(chosen, key=lambda sample: len(sample.input_ids))
    rng = np.random.default_rng(seed)
    for begin in range(0, len(order), rows):
        batch = order[begin : begin + rows]
        counted, length = len(batch), len(batch[-1].input_ids)
        others = [order[int(rng.integers(len(order)))] for _ in range(rows - counted)]
        batch += [
            dataclasses.replace(other, positions=other.positions[:0], labels=other.labels[:0]) for other in others
        ]
        yield [_of_length(sample, length) for sample in batch], counted


def _moved(
    model: Graph, accumulator: Accumulator, conventions: Conventions, given: tuple[list[Sample], int]
) -> tuple[list[SampleMetrics], list[SampleMetrics]]:
    """Compare the answers of a batch's samples with those that each gives alone, and alone with those with padding."""
    batch, counted = given
    wanted = list(dict.fromkeys(name for sample in batch[:counted] for name in _outputs_for(sample, model)))
    if not wanted:
        return [], []
    crowd = _run(model, make_batch(batch), wanted, "model")
    mates, padded = [], []
    begin = 0
    for row, sample in enumerate(batch[:counted]):
        names = _outputs_for(sample, model)
        if names:
            alone = _run(model, make_batch([sample]), names, "model")
            mates.append(accumulator.compare(sample, alone, _row(crowd, names, row, begin, sample)))
            length = min(conventions.max_length, 2 * len(sample.input_ids))
            if length > len(sample.input_ids):
                wide = _run(model, make_batch([sample], pad=conventions.pad, length=length), names, "model")
                padded.append(accumulator.compare(sample, alone, _row(wide, names, 0, 0, sample)))
        begin += len(sample.positions)
    return mates, padded


def _outputs_for(sample: Sample, *graphs: Graph) -> list[str]:
    """Return the outputs that a sample is measured on; hidden states first, by which an overflow is noticed."""
    heads = sorted(HEADS.values(), key=lambda head: head.output != HIDDEN_STATES)
    asked = dict.fromkeys(head.output for head in heads if head.asks(sample))
    return [output for output in asked if all(output in graph.outputs for graph in graphs)]


def _run(graph: Graph, batch: Batch, names: list[str], role: str) -> Outputs:
    outputs = graph.run(batch, names)
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise ValidationError(
                f"the {role} gives {name} that are not finite numbers (for an input of {batch.input_ids.shape[1]} "
                "tokens): the graph overflows or is damaged, so nothing can be measured; quantize or export it again"
            )
    return outputs


def _row(outputs: Outputs, names: Sequence[str], row: int, decoded: int, sample: Sample) -> Outputs:
    """Pick a sample's own row and tokens out of a wider batch; its decoded positions begin at `decoded`."""
    positions = decoded_outputs(names)
    picked = {}
    for name in names:
        if name in positions:
            picked[name] = outputs[name][decoded : decoded + len(sample.positions)]
        else:
            values = outputs[name][row : row + 1]
            picked[name] = values[:, : len(sample.input_ids)] if is_per_token(name) else values
    return picked


def _of_length(sample: Sample, length: int) -> Sample:
    """Stretch a sample to a length by repeating it from its beginning; what is decoded of it stays."""
    return dataclasses.replace(
        sample,
        input_ids=np.resize(sample.input_ids, length),
        token_type_ids=np.resize(sample.token_type_ids, length),
        words=None if sample.words is None else np.resize(sample.words, length),
    )


def _evenly(size: int, limit: int) -> list[int]:
    return sorted(set(np.linspace(0, size - 1, min(size, limit)).round().astype(int).tolist()))
