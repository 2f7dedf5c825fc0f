"""The steps of an evaluation: the data is checked, then each variant answers all of it, one after the other."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.compare.entries import REFERENCE
from bertport.compare.evaluate.differing import differing_examples
from bertport.compare.evaluate.document import (
    Comparison,
    Data,
    EvaluatedBundle,
    EvaluatedVariant,
    Evaluation,
    RecordedSpeed,
    Settings,
)
from bertport.compare.evaluate.sentences import conclusion, difference_sentence
from bertport.measure import statistics
from bertport.measure.labelled.figures import choose_metrics, paired_differences, task_figures
from bertport.measure.labelled.lengths import check_lengths
from bertport.measure.labelled.metrics import require_packages
from bertport.measure.labelled.predictions import predict_labelled
from bertport.measure.machine import describe_machine
from bertport.measure.quality.model import size_of
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import choices
from bertport.runtime.errors import BundleError, OutputError, ProviderError, UsageError
from bertport.runtime.excerpts import as_unicode
from bertport.runtime.providers import plugins
from bertport.runtime.providers.checks import obstacle, refusal
from bertport.runtime.providers.table import candidates

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.figures import Chosen, PairedDifference, TaskFigures
    from bertport.measure.labelled.options import DataChoice
    from bertport.measure.labelled.predictions import Predictions
    from bertport.runtime.bundle.manifest import Manifest, Variant
    from bertport.runtime.commands.progress import Progress
    from bertport.runtime.providers.table import Provider

__all__ = ["Options", "evaluate"]

FIGURES = "figures"
"""The last step, in the plan of the progress."""
FIGURES_SHARE = 0.1
"""Its time, about, as a share of the time that a variant takes to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of an evaluation, as given on the command line."""

    bundle: str
    """Directory of the bundle."""
    labelled: DataChoice
    """The data."""
    variants: tuple[str, ...] = ()
    """Variants beside the reference; none for every one that this machine can run."""
    reference: str | None = None
    """The variant that the others are compared with; None for fp32."""
    metrics: tuple[str, ...] = ()
    """Metrics; none for all that are for the data."""
    provider: str = "auto"
    """A row of the table of providers, or `auto`."""
    provider_library: str | os.PathLike[str] | None = None
    """Path of the plugin that holds it; None for that of its package."""
    threads: int | None = None
    """Within an operator."""
    seed: int = 0
    """Of resamples and permutations."""
    limit: int | None = None
    """Most examples, the first of the file; None for all."""
    examples: int = 0
    """Examples on which variants differ most that are given."""
    truncation: bool = False
    """Cut texts that are too long instead of refusing them."""
    command: str = ""
    """The command line, for the record."""


def evaluate(options: Options, progress: Progress) -> Evaluation:
    """Return the evaluation of a bundle's variants on labelled data.

    The packages, what was asked for, and the data are checked before a session is opened. One variant is in memory at
    a time.

    Raises:
        BertportError: for what cannot be measured; the sentence says why.
    """
    require_packages("evaluate")
    bundle = Bundle.open(options.bundle)
    names, left_out = _variants(bundle.manifest, options)
    progress.show(f"checking {as_unicode(str(options.labelled.data))} …")
    data = options.labelled.read(bundle.manifest, limit=options.limit)
    chosen = choose_metrics(data, options.metrics or None, positive=options.labelled.positive)
    check_lengths(bundle, data, truncation=options.truncation)
    for note in (*data.notes, *chosen.notes):
        progress.note(note)
    progress.plan({**dict.fromkeys(names, float(len(data))), FIGURES: len(data) * FIGURES_SHARE})
    answers, broken = _answers(bundle, names, data, options, progress)
    progress.begin(FIGURES, "intervals and tests")
    settings = statistics.Settings(seed=options.seed)
    variants = tuple(
        _evaluated(bundle, answered, task_figures(answered.predictions, data, settings, chosen=chosen))
        for answered in answers
    )
    reference, *others = answers
    comparisons = tuple(
        _comparison(
            other,
            reference,
            paired_differences(other.predictions, reference.predictions, data, settings, chosen=chosen),
        )
        for other in others
    )
    progress.finish()
    predictions = {answered.variant: answered.predictions for answered in answers}
    return Evaluation(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        command=as_unicode(options.command),
        bundle=EvaluatedBundle(
            name=bundle.manifest.name, digest=bundle.digest, default_variant=bundle.manifest.default_variant
        ),
        task=data.task,
        data=_described(data, chosen, options),
        settings=Settings(
            provider=options.provider,
            threads=options.threads,
            truncation=options.truncation,
            seed=options.seed,
            resamples=settings.resamples,
            confidence=settings.confidence,
        ),
        machine=describe_machine(),
        reference=reference.variant,
        variants=variants,
        comparisons=comparisons,
        left_out=(*left_out, *broken),
        conclusion=conclusion(reference.variant, variants, comparisons),
        examples=differing_examples(predictions, reference.variant, data, options.examples)
        if options.examples
        else None,
    )


def _variants(manifest: Manifest, options: Options) -> tuple[list[str], tuple[str, ...]]:
    """Return the variants to measure, the reference first, and a sentence for each that is left out.

    Raises:
        UnknownNameError: for an unknown variant or provider.
        UsageError: for a bundle without fp32's weights, where no reference is named.
        ProviderError: for one that was asked for and that the provider, or this machine, cannot run.
    """
    rows = plugins.rows(options.provider, options.provider_library)
    provider = options.provider if options.provider_library is None else rows[0].name  # as `load` calls it
    reference = options.reference
    if reference is None:
        reference = REFERENCE if REFERENCE in manifest.variants else "portable"
        if reference not in manifest.variants:
            raise UsageError(
                f"the bundle of {manifest.name} has no variant {REFERENCE!r} or {reference!r} that the others are "
                f"compared with: name one of its own with --against ({', '.join(manifest.variants)})"
            )
    asked = dict.fromkeys((reference, *options.variants))
    for name in asked:
        _require_runnable(manifest, name, provider, rows)
    if options.variants:
        return list(asked), ()
    names, left_out = [reference], []
    for name in manifest.variants:
        if name == reference:
            continue
        if reason := _obstacle(manifest, name, reference, provider, rows):
            left_out.append(f"{name}: {reason}")
        else:
            names.append(name)
    return names, tuple(left_out)


def _obstacle(manifest: Manifest, name: str, reference: str, provider: str, rows: Sequence[Provider]) -> str | None:
    """Return why a variant that was not asked for is left out; None where it takes part."""
    variant, of_reference = manifest.variants[name], manifest.variants[reference]
    if variant.recipe == of_reference.recipe and {variant.kind, of_reference.kind} == {"portable", "serving"}:
        return f"the weights of {reference} as they were exported (--variant {name})"
    try:
        _require_runnable(manifest, name, provider, rows)
    except ProviderError as error:
        return error.message
    return None


def _require_runnable(manifest: Manifest, name: str, provider: str, rows: Sequence[Provider]) -> None:
    """Refuse a variant that no provider here can run, before any variant answers.

    Raises:
        UnknownNameError: for a variant that the bundle does not have.
        ProviderError: for one that is not made for these providers, or whose providers do not start here.
    """
    pairs = choices(manifest, name, provider, rows)
    precision = manifest.variants[name].requires.precision
    for _, row in pairs:
        if row not in rows:  # under `auto`, the one that it was measured on
            candidates(row.name)
    reasons = [obstacle(row, precision) for _, row in pairs]
    if None not in reasons:
        raise refusal(pairs[0][1], str(reasons[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """Predictions of one variant on the data."""

    variant: str
    """The variant."""
    provider: str
    """The execution provider that it ran on."""
    predictions: Predictions
    """Its answers."""


def _answers(
    bundle: Bundle, names: Sequence[str], data: LabelledData, options: Options, progress: Progress
) -> tuple[list[_Answered], list[str]]:
    """Return what each variant answers, the reference first, and a sentence for each that fails.

    Raises:
        BundleError, OutputError, ProviderError: for the reference, for a variant that was asked for, and where the
            bundle has changed meanwhile.
    """
    answers: list[_Answered] = []
    broken: list[str] = []
    for name in names:
        try:
            answers.append(_answered(bundle, name, data, options, progress))
        except (BundleError, OutputError, ProviderError) as error:
            if not answers or name in options.variants or Bundle.open(bundle.path).digest != bundle.digest:
                raise
            broken.append(as_unicode(f"{name}: {error.message}"))
            progress.finish()
    return answers, broken


def _answered(bundle: Bundle, name: str, data: LabelledData, options: Options, progress: Progress) -> _Answered:
    """Return what a variant answers; its session is closed again."""
    progress.begin(name, name)
    model = load(
        bundle.path,
        variant=name,
        provider=options.provider,
        provider_library=options.provider_library,
        threads=options.threads,
        digest=bundle.digest,
    )

    def told(done: int, count: int) -> None:
        if progress.due():
            progress.update(done, count)

    predictions = predict_labelled(model, data, truncation=options.truncation, progress=told)
    progress.finish()
    return _Answered(variant=name, provider=model.graph.provider.name, predictions=predictions)


def _evaluated(bundle: Bundle, answered: _Answered, figures: TaskFigures) -> EvaluatedVariant:
    """Return the entry of one variant."""
    variant = bundle.manifest.variants[answered.variant]
    speed, cpu = _recorded_speed(variant)
    return EvaluatedVariant(
        name=answered.variant,
        recipe=variant.recipe,
        provider=answered.provider,
        size_bytes=size_of(bundle, answered.variant),
        figures=figures,
        recorded_speed=speed,
        recorded_on=cpu,
    )


def _recorded_speed(variant: Variant) -> tuple[dict[str, RecordedSpeed], str | None]:
    """Return what the manifest records of a variant's speed, and the CPU that it is of; nothing where it records none.

    A manifest may hold what another program wrote: what is no such record is passed over.
    """
    match variant.fidelity:
        case {"speed": Mapping() as shapes, "machine": {"cpu": str(cpu)}}:
            pass
        case _:
            return {}, None
    speeds = {}
    for shape, speed in shapes.items():
        match speed:
            case {"speedup": float(speedup), "low": float(low), "high": float(high)} if 0 < low <= speedup <= high:
                speeds[shape] = RecordedSpeed(speedup=speedup, low=low, high=high)
    return speeds, cpu if speeds else None


def _comparison(other: _Answered, reference: _Answered, differences: Mapping[str, PairedDifference]) -> Comparison:
    """Return what the differences of a variant from the reference come to."""
    count = len(other.predictions)
    return Comparison(
        variant=other.variant,
        differences=differences,
        sentences=tuple(
            difference_sentence(other.variant, reference.variant, paired, count) for paired in differences.values()
        ),
    )


def _described(data: LabelledData, chosen: Chosen, options: Options) -> Data:
    """Return what the document says of the data."""
    return Data(
        name=data.name,
        fingerprint=data.fingerprint,
        examples=len(data),
        limit=options.limit,
        kind=data.kind,
        columns=data.columns,
        labels=data.labels,
        label_form=data.label_form,
        label_map=options.labelled.label_map,
        positive=None if chosen.positive is None else (data.labels or ())[chosen.positive],
        notes=data.notes,
        prompts=data.prompts.to_json() if data.prompts else None,
    )
