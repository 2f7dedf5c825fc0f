"""How far a variant is from fp32: per head, on real text, with intervals."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bertport.compare.graph import HIDDEN, LOGITS, NSP_LOGITS, Batch, Graph, make_batch
from bertport.compare.results import Conventions, Fidelity, Stability
from bertport.compare.statistics import Settings
from bertport.compare.tally import Tally
from bertport.runtime.errors import UsageError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bertport.compare.graph import Outputs
    from bertport.compare.masking import Sample

__all__ = ["measure", "measure_stability"]


def measure(  # noqa: PLR0913 — one call measures everything; what is rarely changed is by keyword
    reference: Graph,
    candidate: Graph,
    samples: Iterable[Sample],
    *,
    settings: Settings | None = None,
    conventions: Conventions | None = None,
    stability: int = 64,
    progress: Callable[[int, int], None] | None = None,
    tallied: Callable[[Tally], None] | None = None,
) -> Fidelity:
    """Measure a candidate against a reference, usually the fp32 variant, one sample at a time.

    Each sample runs alone, so no figure depends on the order; the logits of one sample are held at a time.

    Args:
        reference: The model that is taken as right.
        candidate: The model under test.
        samples: From `masking.masked_samples` and `masking.pair_samples`, in any order.
        settings: Seed, resamples and confidence level.
        conventions: The model's maximum length, padding id and meaning of the NSP labels.
        stability: Samples of each kind on which to measure the effect of batch mates and padding; 0 for none.
        progress: Called with the number of samples done and the number of all.
        tallied: Given the sums per text that the figures were drawn from.

    Raises:
        UsageError: when there are no samples, or the graphs share no output that a sample asks for.
        ValidationError: when an output is not a finite number.
    """
    settings, conventions = settings or Settings(), conventions or Conventions()
    samples = list(samples)
    tally = Tally(conventions.positive)
    for done, sample in enumerate(samples, 1):
        names = _outputs_for(sample, reference, candidate)
        if names:
            batch = make_batch([sample])
            tally.add(sample, _run(reference, batch, names, "reference"), _run(candidate, batch, names, "candidate"))
        if progress:
            progress(done, len(samples))
    if not tally.measured:
        message = (
            f"nothing to measure: {len(samples)} samples, and the graphs give {', '.join(reference.outputs)} "
            f"and {', '.join(candidate.outputs)}: give more text, or graphs with a common head"
        )
        raise UsageError(message)
    if tallied:
        tallied(tally)
    return Fidelity(
        samples=len(samples),
        seed=settings.seed,
        resamples=settings.resamples,
        confidence=settings.confidence,
        mlm=tally.masked_tokens(settings),
        nsp=tally.next_sentence(settings),
        hidden=tally.hidden(settings),
        stability=measure_stability(candidate, samples, limit=stability, settings=settings, conventions=conventions)
        if stability
        else None,
    )


def measure_stability(  # noqa: PLR0913 — as above
    model: Graph,
    samples: Sequence[Sample],
    *,
    limit: int = 64,
    rows: int = 8,
    settings: Settings | None = None,
    conventions: Conventions | None = None,
) -> Stability | None:
    """Measure how a model's answers move with batch mates and with padding.

    Mates are other samples cut or repeated to the text's own length, so that no padding comes with them.

    Args:
        model: The model under test.
        samples: Texts to choose from, evenly; as `measure` takes them.
        limit: The most samples of each kind to run.
        rows: Rows of the batch with mates.
        settings: Seed, resamples and confidence level.
        conventions: The model's maximum length, padding id and meaning of the NSP labels.

    Returns:
        None when no sample asks for an output that the model gives.
    """
    settings, conventions = settings or Settings(), conventions or Conventions()
    kinds = (
        [each for each in samples if each.next_sentence is None],
        [each for each in samples if each.next_sentence is not None],
    )
    chosen = [kind[index] for kind in kinds for index in _evenly(len(kind), limit)]
    rng = np.random.default_rng(settings.seed)
    mates, padded = Tally(conventions.positive), Tally(conventions.positive)
    for sample in chosen:
        names = _outputs_for(sample, model)
        if not names:
            continue
        alone = _run(model, make_batch([sample]), names, "model")
        crowd = make_batch([sample, *(_cut(samples[int(rng.integers(len(samples)))], sample) for _ in range(rows - 1))])
        mates.add(sample, alone, _first_row(_run(model, crowd, names, "model"), sample))
        length = min(conventions.max_length, 2 * len(sample.input_ids))
        if length > len(sample.input_ids):
            wide = _run(model, make_batch([sample], pad=conventions.pad, length=length), names, "model")
            padded.add(sample, alone, _first_row(wide, sample))
    if not mates.measured:
        return None
    return Stability(
        texts=mates.measured,
        rows=rows,
        batch_mates=mates.movement(settings),
        padding=padded.movement(settings) if padded.measured else None,
    )


def _outputs_for(sample: Sample, *graphs: Graph) -> list[str]:
    wanted = [HIDDEN]
    if len(sample.positions):
        wanted.append(LOGITS)
    if sample.next_sentence is not None:
        wanted.append(NSP_LOGITS)
    return [name for name in wanted if all(name in graph.outputs for graph in graphs)]


def _run(graph: Graph, batch: Batch, names: list[str], role: str) -> Outputs:
    found = graph.run(batch, names)
    for name, values in found.items():
        if not np.isfinite(values).all():
            message = (
                f"the {role} gives {name} that are not finite numbers (for an input of {batch.input_ids.shape[1]} "
                "tokens): the graph overflows or is damaged, so nothing can be measured; quantize or export it again"
            )
            raise ValidationError(message)
    return found


def _first_row(outputs: Outputs, sample: Sample) -> Outputs:
    """Keep the sample's own row and tokens of a wider batch; only the sample's positions were decoded."""
    found = dict(outputs)
    if NSP_LOGITS in found:
        found[NSP_LOGITS] = found[NSP_LOGITS][:1]
    if HIDDEN in found:
        found[HIDDEN] = found[HIDDEN][:1, : len(sample.input_ids)]
    return found


def _cut(mate: Sample, sample: Sample) -> Sample:
    """Give a mate the sample's length, by cutting or repeating it, and nothing to decode."""
    length = len(sample.input_ids)
    return dataclasses.replace(
        mate,
        input_ids=np.resize(mate.input_ids, length),
        token_type_ids=np.resize(mate.token_type_ids, length),
        positions=mate.positions[:0],
        labels=mate.labels[:0],
    )


def _evenly(size: int, limit: int) -> list[int]:
    return sorted(set(np.linspace(0, size - 1, min(size, limit)).round().astype(int).tolist()))
