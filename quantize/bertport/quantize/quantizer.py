"""Quantizing a bundle: make a graph, measure it, and add it when it keeps its promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.budget import NO_BUDGET
from bertport.measure.quality.model import Batch
from bertport.quantize.card import refresh_card, write_layers
from bertport.quantize.deadline import Deadline, TimeUpError, format_duration
from bertport.quantize.evaluation import REFERENCE, Measurement, measurement, time_against
from bertport.quantize.graph.storage import write_graph
from bertport.quantize.graph.tensorrt_rules import broken_rules
from bertport.quantize.isa import resolve_isa
from bertport.quantize.job import (
    Job,
    Options,
    Outcome,
    Refused,
    provider_for,
    refuse_idle_settings,
    refuse_unmeasured,
    start_job,
)
from bertport.quantize.recipes.table import RECIPES, Recipe, recipe_named
from bertport.quantize.search.mixed_precision import BrokenBudgetError, Solution, meet_budget
from bertport.runtime.bundle.changes import add_variant, refuse_another, tidy
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.golden import read_golden
from bertport.runtime.bundle.manifest import Variant
from bertport.runtime.bundle.requirements import requires_of
from bertport.runtime.bundle.select import CPU, fastest_here, suits
from bertport.runtime.bundle.workspace import Workspace
from bertport.runtime.errors import SlowerError, UsageError, ValidationError
from bertport.runtime.golden_making import vectors_of
from bertport.runtime.heads import POSITIONS, SEGMENTS
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import open_graph

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    import onnx

    from bertport.quantize.recipes.source import GraphSource
    from bertport.runtime.bundle.golden import Golden, GoldenVariant
    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.bundle.measured import MeasuredSpeed
    from bertport.runtime.providers.cpu import InstructionSet

__all__ = ["faster_default", "quantize", "taken_here"]


def quantize(
    path: str | os.PathLike[str], recipes: Iterable[str] = (), *, options: Options | None = None
) -> list[Outcome]:
    """Add variants to a bundle, each measured against fp32 on this machine.

    Args:
        path: The bundle's directory.
        recipes: Names of recipes; the first of the table when there are none.
        options: How to make and measure them.

    Returns:
        What was added, in the order of the recipes. Each is committed before the next is begun.

    Raises:
        PathError, BundleError: when there is no bundle, it is damaged, it cannot be written, or it is another model by
            now.
        UnknownNameError: for an unknown recipe or instruction set.
        UsageError: for a variant that is there already.
        MissingHeadError: for a bound that was asked for on a head that is not there.
        InputTextError: for a text that the vocabulary does not read, and labelled data that cannot be used.
        SlowerError: for a variant that is slower than fp32.
        ProviderError: for a recipe whose providers are not here.
        ValidationError: for a variant that breaks its budget. What was not added leaves the bundle as it was.
        MissingDependencyError: without a package that makes graphs.
    """
    options = options or Options()
    chosen = [recipe_named(name) for name in dict.fromkeys(recipes)] or [next(iter(RECIPES.values()))]
    isa = resolve_isa(options.isa)
    tidy(path)
    bundle = Bundle.open(path)
    _refuse_existing(chosen, bundle, options)
    refuse_idle_settings(chosen, options)
    read_golden(bundle)  # to which the variants' are added in the end: what cannot be read must not cost more
    providers = [provider_for(recipe, force=options.force) for recipe in chosen]
    deadline = Deadline(options.time_limit, options.started)
    options = dataclasses.replace(options, progress=deadline.watching(options.progress))
    outcomes: list[Outcome] = []
    try:
        job = start_job(chosen, bundle, options, isa=isa, deadline=deadline)
        for recipe, provider in zip(chosen, providers, strict=True):
            now = Bundle.open(path)
            refuse_another(bundle, now)  # the job holds graphs of the old model
            evaluator = dataclasses.replace(job.evaluator, bundle=now, provider=provider.name)
            outcomes.append(_add(dataclasses.replace(job, evaluator=evaluator), recipe))
            options.told(outcomes[-1])
    except TimeUpError:
        raise ValidationError(
            f"the time limit of {format_duration(options.time_limit or 0)} passed before {chosen[len(outcomes)].name} "
            "was measured: give a longer --time-limit; the bundle is as it was"
            + (f", with {' and '.join(outcome.name for outcome in outcomes)} added" if outcomes else "")
        ) from None
    return outcomes


def _refuse_existing(recipes: Iterable[Recipe], bundle: Bundle, options: Options) -> None:
    """Refuse a variant that the bundle has, unless it may be made again."""
    for recipe in recipes:
        if recipe.name in bundle.manifest.variants and not options.overwrite:
            raise UsageError(
                f"the bundle at {bundle.path} has the variant {recipe.name!r} already: pass --overwrite to make it "
                "again, or --remeasure to refresh its figures"
            )


def _add(job: Job, recipe: Recipe) -> Outcome:
    """Find the graph of a recipe that meets the budget, time it, and add it to the bundle."""
    job.evaluator.deadline.armed = True  # also while this recipe is calibrated, which the last one's end had excepted
    provider = job.evaluator.provider
    golden = read_golden(job.evaluator.bundle)  # now: another process may move the file meanwhile
    with Workspace.beside(job.evaluator.bundle) as work:
        source = job.calibrator.apply(job.source, recipe) if job.calibrator else job.source
        job.evaluator.progress(f"making {recipe.name}", 0, 0)
        solution = _solution(job, recipe, source)
        variant, files = _written(job, recipe, solution, work)
        measured = _timed(job, recipe, files.get(variant.file, REFERENCE), solution)
        variants = job.evaluator.bundle.manifest.variants
        recorded = [other.task_metrics for name, other in variants.items() if name != recipe.name]
        variant = dataclasses.replace(
            variant,
            fidelity=_fidelity(job, recipe, solution, measured),
            task_metrics=solution.labelled.record(recorded) if solution.labelled else {},
        )
        if solution.layers:
            higher = sorted(solution.source.high_precision_layers)
            files |= write_layers(solution.layers, higher, recipe.name, work.directory)
        bundle = add_variant(
            work,
            recipe.name,
            variant,
            files,
            overwrite=job.options.overwrite,
            default=lambda now: _default_with(now, recipe.name, variant),
            golden=_golden(job, variant, files, golden) if golden and suits(variant.requires, provider) else None,
        )
        refresh_card(bundle)
    return Outcome(
        name=recipe.name,
        variant=bundle.manifest.variants[recipe.name],
        measured=measured,
        default=bundle.manifest.default_variant == recipe.name,
        labelled=solution.labelled,
        taken=taken_here(bundle.manifest),
    )


def taken_here(manifest: Manifest) -> MeasuredSpeed | None:
    """Return the fastest of the variants that were measured on this class of CPU, which `auto` takes; None for none."""
    return next(iter(fastest_here(manifest)), None)


def _written(job: Job, recipe: Recipe, solution: Solution, work: Workspace) -> tuple[Variant, dict[str, Path]]:
    """Write the graph of a solution; return its variant without figures, and its files by their path in the bundle.

    A recipe that shares fp32's has none of its own: its variant is fp32 in another precision.
    """
    outputs = job.evaluator.reference.outputs
    if recipe.shares_fp32:
        fp32 = job.evaluator.bundle.manifest.variants[REFERENCE]
        requires = dataclasses.replace(fp32.requires, precision=recipe.precision)
        return dataclasses.replace(fp32, recipe=recipe.name, requires=requires, outputs=outputs, validation=None), {}
    model = recipe.make(solution.source)
    _check_rules(recipe, model)
    file = work.reserve(recipe.file)
    graph = work.directory / Path(file).name
    # The graph names its weights' file, so both get the names that they will have in the bundle.
    weights = {str(PurePosixPath(file).with_name(part.name)): part for part in write_graph(model, graph)}
    variant = describe(recipe, model, solution.source.instruction_set, outputs=outputs)
    return dataclasses.replace(variant, file=file, external_data=tuple(weights)), {file: graph, **weights}


def _check_rules(recipe: Recipe, model: onnx.ModelProto) -> None:
    """Refuse a graph for TensorRT that breaks its rules.

    Raises:
        ValidationError: for such a graph.
    """
    if recipe.scheme and recipe.scheme.symmetric and (broken := broken_rules(model)):
        raise ValidationError(
            f"TensorRT would not take the graph of {recipe.name} ({broken[0]}, {len(broken)} in all): "
            "choose another recipe; it was not added"
        )


def _solution(job: Job, recipe: Recipe, source: GraphSource) -> Solution:
    """Return the graph that meets the budget; report what was measured where none does."""
    try:
        solution = meet_budget(job.evaluator, recipe, source, job.budget, decides=job.options.budget is None)
    except BrokenBudgetError as error:
        measured = Measurement.of_accuracy(job.evaluator.bundle, error.accuracy, job.evaluator.evaluation)
        job.options.told(Refused(name=recipe.name, measured=measured, reason=str(error), labelled=error.labelled))
        raise
    refuse_unmeasured(job.budget, solution.accuracy, solution.evaluation, job.options)
    job.evaluator.deadline.armed = False  # what was found has yet to be timed and written
    return solution


def _timed(job: Job, recipe: Recipe, graph: Path | str, solution: Solution) -> Measurement:
    """Time a graph, and put all its figures together; refuse one that is slower than fp32 unless that is accepted."""
    bundle, options = job.evaluator.bundle, job.options
    speed = time_against(
        bundle,
        graph,
        progress=job.evaluator.progress,
        provider=job.evaluator.provider,
        precision=recipe.precision,
        against=recipe.timed_against,
    )
    shared = isinstance(graph, str)
    path = bundle.file(bundle.manifest.variants[graph].file) if isinstance(graph, str) else graph
    measured = measurement(bundle, path, solution.accuracy, solution.evaluation, speed, shared=shared)
    if measured.slower and not (recipe.for_size or options.force):
        ratios = ", ".join(f"{ratio.speedup:.2f}x at {shape}" for shape, ratio in speed.items())
        reason = (
            f"{recipe.name} is slower than fp32 on this machine ({ratios}): pass --force to add it anyway, "
            "marked as slower; it was not added"
        )
        options.told(Refused(name=recipe.name, measured=measured, reason=reason, labelled=solution.labelled))
        raise SlowerError(reason)
    return measured


def _fidelity(job: Job, recipe: Recipe, solution: Solution, measured: Measurement) -> dict[str, Any]:
    """Return what the manifest says of how a variant was made and measured."""
    source = solution.source
    record = measured.to_json() | {
        "provider": job.evaluator.provider,
        "reference_provider": recipe.timed_against or job.evaluator.provider,
        "budget": str(job.budget),
        "higher_precision": sorted(source.high_precision_layers),
        "higher_is": "16-bit activations"
        if recipe.int16_activations and not source.float_fallback
        else recipe.fallback,
        "verdicts": job.budget.verdicts(solution.accuracy)
        | (solution.labelled.verdicts_json() if solution.labelled else {}),
    }
    if solution.search:
        record["search"] = solution.search
    if job.calibrator and recipe.scheme:
        record["calibration"] = job.calibrator.record(source)
    if recipe.calibrates_weights or recipe.scheme:
        record["weights_fitted_to"] = source.weights.calibrated_on
    return record


def _golden(job: Job, variant: Variant, files: Mapping[str, Path], known: Golden) -> GoldenVariant:
    """Return a variant's outputs for the batches of known golden vectors; its graph is among the files, or fp32's."""
    bundle, reference = job.evaluator.bundle, job.evaluator.reference
    right = []
    for feeds in known.feeds():
        ids = feeds["input_ids"]
        absent = {SEGMENTS: np.zeros_like(ids), POSITIONS: np.zeros(0, dtype=np.int64)}
        right.append(reference.run(Batch(**{**absent, **feeds}), variant.outputs))
    provider, precision = PROVIDERS[job.evaluator.provider], variant.requires.precision
    if variant.file in files:
        opened = open_graph(files[variant.file], provider, threads=1, precision=precision)
    else:
        checked = bundle.check_variant(REFERENCE)
        with checked.opening() as path:
            data = checked.external_data
            opened = open_graph(path, provider, threads=1, precision=precision, external_data=data)
    return vectors_of(known, opened, variant, right)


def describe(
    recipe: Recipe,
    model: onnx.ModelProto,
    instruction_set: InstructionSet | None,
    *,
    outputs: tuple[str, ...],
    fidelity: dict[str, Any] | None = None,
) -> Variant:
    """Return a variant's entry in the manifest."""
    return Variant(
        file=recipe.file,
        kind="serving",
        recipe=recipe.name,
        requires=requires_of(
            model,
            precision=recipe.precision,
            isa=instruction_set.name if recipe.by_instruction_set and instruction_set else None,
        ),
        outputs=outputs,
        fidelity=fidelity,
    )


def _default_with(bundle: Bundle, name: str, variant: Variant) -> str | None:
    """Return the default of a bundle that gets a variant; None for the one that it has.

    A default that is made again, and is no longer faster or within a budget, is the default no longer.
    """
    replaced = REFERENCE if bundle.manifest.default_variant == name else None
    return faster_default(bundle, name, variant) or replaced


def faster_default(bundle: Bundle, name: str, variant: Variant) -> str | None:
    """Make the fastest variant for the CPU that was measured within a budget the bundle's default.

    Faster by the shape at which it gains least, on whatever machine it was measured: the default is for machines that
    nothing was measured on, where no shape may be slower. What `load` takes of those that were measured on its own
    class of CPU, by the mean of the shapes, may be another (`bertport.runtime.bundle.measured`).

    A provider that the default is not for gets fp32, as before.
    """
    fastest, default = 1.0, None
    for other, entry in {**bundle.manifest.variants, name: variant}.items():
        if suits(entry.requires, CPU) and (ratio := _least_ratio(entry.fidelity or {})) > fastest:
            fastest, default = ratio, other
    return default


def _least_ratio(record: Mapping[str, Any]) -> float:
    """Return the least ratio to fp32 of a variant that was measured within a budget; 0 for any other.

    The record comes from a file: what is not as this version writes it counts as not measured.
    """
    budget = record.get("budget")
    if not isinstance(budget, str) or budget == NO_BUDGET:
        return 0.0
    try:
        return min(float(speed["speedup"]) for speed in record["speed"].values())
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return 0.0
