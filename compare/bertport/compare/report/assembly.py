"""Assembly of the report from what was measured, and of its conclusions from its figures."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bertport.compare.report.document import (
    SCHEMA,
    SCHEMA_VERSION,
    TRAINED,
    Bias,
    BiasProbe,
    BundleInfo,
    LabelBias,
    Labelled,
    LabelShift,
    Report,
    Row,
    Settings,
    TextInfo,
)
from bertport.compare.report.not_measured import not_measured
from bertport.compare.report.recommend import recommend, verdicts
from bertport.compare.report.significance import findings
from bertport.compare.report.speed import RowSpeed
from bertport.measure import statistics
from bertport.measure.budget import format_budget
from bertport.measure.machine import installed_versions
from bertport.measure.quality.bias import SHIPPED, SHIPPED_FOR_LABELS
from bertport.measure.quality.heads import measured_rows
from bertport.measure.quality.label_bias import scores_are
from bertport.measure.quality.results import MaskedTokens
from bertport.measure.speed.baselines import BASELINES
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertport.compare.entries import ComparedBundle, Entry
    from bertport.compare.measurements import Measurements
    from bertport.compare.report.document import Weights
    from bertport.measure.quality.bias import PairAnswers
    from bertport.measure.quality.label_bias import LabelScores
    from bertport.measure.statistics import Difference, Estimate
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["assemble", "conclude"]

MOST_LABELS = 20
"""Labels of a classifier that the report has of the bias probe: those that move most."""

CHANCE = 0.9
"""Share of ln(vocabulary) from which -log p of the original token says no more than chance does: a uniform guess has
exactly ln(vocabulary), a trained model a third of it or less."""


def assemble(measurements: Measurements) -> Report:
    """Return the report of what has been measured, finished or not."""
    settings = statistics.Settings(seed=measurements.seed)
    report = Report(
        schema=SCHEMA,
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        complete=measurements.complete,
        seconds=round(measurements.seconds, 1),
        steps_resumed=measurements.steps_resumed,
        command=measurements.command,
        machine=measurements.machine,
        packages=_packages(measurements.baselines),
        settings=Settings(
            preset=measurements.preset,
            threads=measurements.threads,
            seed=measurements.seed,
            resamples=settings.resamples,
            confidence=settings.confidence,
            budget=measurements.budget,
            budget_in_words=format_budget(measurements.budget),
        ),
        text=TextInfo(
            name=measurements.text_name,
            sha256=measurements.text_sha256,
            texts=measurements.text_count,
            shipped=measurements.text_shipped,
            inputs=measurements.inputs.summary(),
        ),
        data=measurements.data,
        bundles=tuple(_bundle(measurements, compared) for compared in measurements.bundles),
        rows=tuple(_row(measurements, entry, settings) for entry in measurements.entries),
        bias_probe=BiasProbe(probe=measurements.probe, shipped=measurements.probe_shipped, file=SHIPPED.name),
        label_bias_probe=BiasProbe(
            probe=measurements.label_probe, shipped=measurements.probe_shipped, file=SHIPPED_FOR_LABELS.name
        )
        if measurements.label_probe
        else None,
        not_measured=(),
    )
    return conclude(dataclasses.replace(report, not_measured=not_measured(report, measurements.left_out)))


def conclude(report: Report, budget: Mapping[str, float] | None = None) -> Report:
    """Return a report with what its figures say today: the findings, the verdicts and the recommendations.

    Args:
        report: With its figures; of `assemble`, or one that was read.
        budget: Bounds to judge by; None for those of the report.
    """
    if budget is not None:
        settings = dataclasses.replace(report.settings, budget=dict(budget), budget_in_words=format_budget(budget))
        report = dataclasses.replace(report, settings=settings)
    return dataclasses.replace(
        report, findings=findings(report), verdicts=verdicts(report), recommendations=recommend(report)
    )


def _bundle(measurements: Measurements, compared: ComparedBundle) -> BundleInfo:
    manifest, reference = compared.bundle.manifest, measurements.reference_of(compared)
    weights, why = _weights(measurements, compared, reference)
    return BundleInfo(
        label=compared.label,
        name=manifest.name,
        architecture=manifest.architecture,
        heads=tuple(dict.fromkeys((*manifest.heads, *measured_rows(manifest.heads)))),
        max_length=manifest.max_length,
        languages=tuple(manifest.languages),
        licence=manifest.licence,
        default_variant=manifest.default_variant,
        source_sha256=dict(manifest.source.weights_sha256),
        reference=reference.name if reference else None,
        weights=weights,
        weights_reason=why,
        samples=measurements.samples[compared.label],
        sensitivity=measurements.layers[compared.label],
    )


def _weights(measurements: Measurements, compared: ComparedBundle, reference: Entry | None) -> tuple[Weights, str]:
    """Return what is known of a bundle's weights, and from what: random ones are stated, or seen by their answers."""
    if measurements.random_weights:
        return "random", "--random-weights was given"
    step = measurements.quality.get(reference.name) if reference else None
    for figures in step.fidelity.heads.values() if step and step.fidelity else ():
        if isinstance(figures, MaskedTokens):
            vocabulary = compared.bundle.manifest.architecture.vocab_size
            nll, chance = figures.nll_reference, math.log(vocabulary)
            if nll.low >= CHANCE * chance:
                return "no better than chance", (
                    f"-log p of the original token is {nll.value:.2f} nats, and a uniform guess among "
                    f"{vocabulary:,} entries has {chance:.2f}"
                )
    return TRAINED, ""


def _row(measurements: Measurements, entry: Entry, settings: statistics.Settings) -> Row:
    name = entry.name
    [compared] = [bundle for bundle in measurements.bundles if bundle.label == entry.bundle]
    manifest, reference = compared.bundle.manifest, measurements.reference_of(compared)
    variant = manifest.variants.get(entry.variant or "")
    step = measurements.quality.get(name)
    speed = RowSpeed(measurements, entry, reference, manifest.architecture, settings)
    return Row(
        name=name,
        bundle=entry.bundle,
        kind=entry.kind,
        variant=entry.variant,
        provider=entry.provider,
        recipe=entry.recipe,
        instruction_set=variant.requires.isa if variant else None,
        reference=bool(reference and reference.name == name),
        default=bool(variant and entry.variant == manifest.default_variant),
        size_bytes=entry.size_bytes,
        failed=measurements.failed.get(name),
        recorded=measurements.recorded.get(name),
        looks=step.looks if step else None,
        quality=step.fidelity if step else None,
        per_text=step.per_text if step else None,
        bias=_bias(measurements, entry, reference, settings),
        label_bias=_label_bias(measurements, entry, reference, manifest, settings),
        labelled=_labelled(measurements, name),
        same_answers=_same_answers(measurements, entry, reference, settings),
        speed=speed.speed(),
        times_faster=speed.times_faster(),
    )


def _labelled(measurements: Measurements, name: str) -> Labelled | None:
    step = measurements.labelled.get(name)
    return Labelled(figures=step.figures, differences=step.differences) if step and step.figures else None


def _bias(
    measurements: Measurements, entry: Entry, reference: Entry | None, settings: statistics.Settings
) -> Bias | None:
    pairs = measurements.bias.get(entry.name)
    if not pairs:
        return None
    distances = _by_template(pairs, [pair.distance for pair in pairs])
    before = measurements.bias.get(reference.name) if reference and reference.name != entry.name else None
    return Bias(
        distance=_mean(distances, settings),
        card=pairs[0],
        pairs=tuple((pair.a, pair.b, pair.distance) for pair in pairs),
        change=_change(distances, _by_template(before, [pair.distance for pair in before]), settings)
        if before
        else None,
    )


def _label_bias(
    measurements: Measurements,
    entry: Entry,
    reference: Entry | None,
    manifest: Manifest,
    settings: statistics.Settings,
) -> LabelBias | None:
    pairs = measurements.label_bias.get(entry.name)
    if not pairs:
        return None
    labels = manifest.heads[SEQUENCE_CLASSIFICATION].labels or ()
    shifts = [_shift(pairs, label, column, settings) for column, label in enumerate(labels)]
    kept = sorted(range(len(labels)), key=lambda column: -shifts[column].distance.value)[:MOST_LABELS]
    before = measurements.label_bias.get(reference.name) if reference and reference.name != entry.name else None
    distances = _by_template(pairs, _furthest(pairs))
    return LabelBias(
        scores=scores_are(manifest),
        distance=_mean(distances, settings),
        labels=tuple(shifts[column] for column in kept),
        pairs=tuple(
            dataclasses.replace(
                pair,
                scores_a=tuple(pair.scores_a[column] for column in kept),
                scores_b=tuple(pair.scores_b[column] for column in kept),
            )
            for pair in pairs
        ),
        change=_change(distances, _by_template(before, _furthest(before)), settings) if before else None,
    )


def _shift(pairs: Sequence[LabelScores], label: str, column: int, settings: statistics.Settings) -> LabelShift:
    changes = [pair.changes[column] for pair in pairs]
    most = max(range(len(pairs)), key=lambda number: abs(changes[number]))
    return LabelShift(
        label=label,
        change=_mean(_by_template(pairs, changes), settings),
        distance=_mean(_by_template(pairs, [abs(change) for change in changes]), settings),
        largest=changes[most],
        a=pairs[most].a,
        b=pairs[most].b,
    )


def _furthest(pairs: Sequence[LabelScores]) -> list[float]:
    """Return by pair the change of the label that moves most, without its sign."""
    return [max(map(abs, pair.changes)) for pair in pairs]


def _mean(groups: Sequence[list[float]], settings: statistics.Settings) -> Estimate:
    return statistics.ratio([sum(group) for group in groups], [len(group) for group in groups], settings)


def _change(new: Sequence[list[float]], old: Sequence[list[float]], settings: statistics.Settings) -> Difference:
    counts = [len(group) for group in new]
    return statistics.paired_difference([sum(group) for group in new], [sum(group) for group in old], counts, settings)


def _by_template(pairs: Sequence[PairAnswers | LabelScores], values: Sequence[float]) -> list[list[float]]:
    """Group a value for each pair by the templates of the pairs."""
    groups: dict[int, list[float]] = {}
    for pair, value in zip(pairs, values, strict=True):
        groups.setdefault(pair.template, []).append(value)
    return [groups[number] for number in sorted(groups)]


def _same_answers(
    measurements: Measurements, entry: Entry, reference: Entry | None, settings: statistics.Settings
) -> Estimate | None:
    answers = measurements.answers
    if reference is None or entry.name not in answers or reference.name not in answers:
        return None
    same = [one == other for one, other in zip(answers[entry.name], answers[reference.name], strict=True)]
    return statistics.share(same, [1] * len(same), settings)


def _packages(baselines: Sequence[str]) -> dict[str, str]:
    return installed_versions(name for baseline in baselines for name in BASELINES[baseline].distributions)
