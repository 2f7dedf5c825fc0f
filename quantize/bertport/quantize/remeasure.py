"""Measuring the variants that a bundle has, again, on this machine; and the table of a variant's layers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bertport.measure.budget import DROP
from bertport.quantize.calibration.ranges import DEFAULT
from bertport.quantize.card import layers_file, refresh_card, write_layers
from bertport.quantize.evaluation import REFERENCE, measurement, time_against
from bertport.quantize.isa import AUTO, resolve_isa, saturates
from bertport.quantize.job import (
    Options,
    Outcome,
    calibrator_for,
    check_packages,
    measured_budget,
    prepare,
    provider_for,
    read_data,
    read_source,
    refuse_idle_settings,
    refuse_unmeasured,
)
from bertport.quantize.labelled import LabelledJudge, standing_drops
from bertport.quantize.quantizer import faster_default, taken_here
from bertport.quantize.recipes.table import RECIPES, recipe_named
from bertport.quantize.search.mixed_precision import STABILITY, by_more_samples, emitter_of, levels_of, rank_layers
from bertport.quantize.search.sensitivity import Layers
from bertport.runtime.bundle.changes import add_files, listed, replace_figures, tidy
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import CPU, overflows, suits
from bertport.runtime.errors import BundleError, PathError, ProviderError, UnknownNameError, UsageError
from bertport.runtime.providers import cpu
from bertport.runtime.providers.cpu import INSTRUCTION_SETS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from bertport.quantize.labelled import LabelledMaterial
    from bertport.quantize.recipes.table import Recipe
    from bertport.runtime.bundle.manifest import Variant
    from bertport.runtime.providers.cpu import InstructionSet

__all__ = ["explain", "remeasure"]


def remeasure(path: str | os.PathLike[str], names: Iterable[str] = (), *, options: Options) -> list[Outcome]:
    """Measure quantized variants again on this machine, and put the figures into the manifest.

    No graph changes. A variant that is now slower than fp32 stays, marked; the default is chosen anew. Figures on
    labelled data that are not measured again stay, and without a budget a variant stays held to the recorded bounds on
    drops, on this data and on other.

    Args:
        path: The bundle's directory.
        names: Names of variants; when there are none, all that were made by a recipe for the CPU, and those that were
            timed against it on a provider that works here.
        options: How to measure.

    Raises:
        UnknownNameError: for a variant that the bundle does not have.
        ProviderError: for one that is named and whose providers are not here, unless `force` takes the CPU for them.
        UsageError: when it has no quantized variant, for a bound whose figure the text gives no sample of, for an
            option on how variants are made, for a variant whose products overflow here, and for labelled data that is
            read otherwise than a recorded bound was measured.
        BundleError: when another process has made the variant, or the bundle, again meanwhile.
    """
    _refuse_idle(options)
    tidy(path)
    bundle = Bundle.open(path)
    made = [name for name, variant in bundle.manifest.variants.items() if variant.recipe in RECIPES]
    chosen = list(dict.fromkeys(names)) or [name for name in made if _measured_on_cpu(bundle.manifest.variants[name])]
    for name in chosen:
        if name not in made:
            raise UnknownNameError("quantized variant", name, made)
        _refuse_overflowing(name, bundle.manifest.variants[name])
    if not chosen:
        raise UsageError(
            f"the bundle at {bundle.path} has no quantized variant to measure: bertport quantize {bundle.path}"
        )
    variants = bundle.manifest.variants
    providers = {
        name: provider_for(RECIPES[variants[name].recipe], force=options.force or suits(variants[name].requires, CPU))
        for name in chosen
    }
    outcomes = []
    material = read_data(bundle, options)
    drops = {name: _drops(material, name, variants[name], options) for name in chosen}
    evaluator = prepare(bundle, options)
    held_to = measured_budget(evaluator, options)
    judge = LabelledJudge.of(bundle, material, options.progress) if material else None
    for name in chosen:
        variant = bundle.manifest.variants[name]
        recipe = RECIPES[variant.recipe]
        provider = providers[name].name
        here = dataclasses.replace(evaluator, bundle=bundle, provider=provider)
        accuracy, evaluation = here.accuracy(recipe, name, here.evaluation, stability=STABILITY), here.evaluation
        times = held_to.undecided(accuracy) if options.budget is None else {}
        if times and (more := by_more_samples(here, recipe, name, held_to, times)):  # as when it was made
            accuracy, evaluation = more
        refuse_unmeasured(held_to, accuracy, evaluation, options)
        labelled = (
            judge.measure(
                bundle,
                name,
                progress=options.progress,
                name=name,
                provider=provider,
                precision=recipe.precision,
                exact=not suits(variant.requires, provider),
                drops=drops[name],
            )
            if judge
            else None
        )
        speed = time_against(
            bundle,
            name,
            progress=options.progress,
            provider=provider,
            precision=recipe.precision,
            against=recipe.timed_against,
        )
        shared = recipe.shares_fp32
        measured = measurement(bundle, bundle.file(variant.file), accuracy, evaluation, speed, shared=shared)
        recorded_of = {} if options.budget else variant.task_metrics
        standing, lost = standing_drops(recorded_of, material.data if material else None)
        broken = held_to.broken(accuracy) or (labelled and labelled.broken) or lost
        bounds = standing | {metric: min(bound, standing.get(metric, bound)) for metric, bound in drops[name].items()}
        budget = "none" if broken else str(dataclasses.replace(held_to, drops=bounds))
        figures = (variant.fidelity or {}) | measured.to_json() | {"provider": provider, "budget": budget}
        figures["reference_provider"] = recipe.timed_against or provider
        figures["verdicts"] = _recorded_verdicts(variant, standing) | held_to.verdicts(accuracy)
        figures["verdicts"] |= labelled.verdicts_json() if labelled else {}
        recorded = [other.task_metrics for other in bundle.manifest.variants.values()]
        on_tasks = variant.task_metrics | (labelled.record(recorded) if labelled else {})
        variant = dataclasses.replace(variant, fidelity=figures, task_metrics=on_tasks)
        bundle = replace_figures(bundle, name, variant, default=_default_with(name, variant))
        refresh_card(bundle)
        default = bundle.manifest.default_variant == name
        outcomes.append(
            Outcome(
                name=name,
                variant=bundle.manifest.variants[name],
                measured=measured,
                default=default,
                labelled=labelled,
                taken=taken_here(bundle.manifest),
            )
        )
        options.told(outcomes[-1])
    return outcomes


def _drops(material: LabelledMaterial | None, name: str, variant: Variant, options: Options) -> dict[str, float]:
    """Return the bounds on drops that a variant is held to: those of the budget, and without one those recorded.

    Raises:
        UsageError: where a recorded bound is on what was read otherwise.
    """
    if material is None or options.budget is not None:
        return dict(material.drops) if material else {}
    return material.recorded_drops(name, variant.task_metrics)


def _recorded_verdicts(variant: Variant, drops: Mapping[str, float]) -> dict[str, Any]:
    """Return the recorded verdicts on bounds on drops that stand."""
    recorded = (variant.fidelity or {}).get("verdicts")
    if not isinstance(recorded, Mapping):
        return {}
    return {limit: judged for limit, judged in recorded.items() if limit in {f"{metric}{DROP}" for metric in drops}}


def _refuse_idle(options: Options) -> None:
    """Refuse options on how variants are made, where none is.

    Raises:
        UsageError: for such an option.
    """
    given = {
        "--isa": options.isa != AUTO,
        "--time-limit": options.time_limit is not None,
        "--calibration-method": options.calibrating.method != DEFAULT.method,
        "--calibration-samples": options.calibrating.samples != DEFAULT.samples,
        "--overwrite": options.overwrite,
    }
    idle = [name for name, is_given in given.items() if is_given]
    if idle:
        raise UsageError(
            f"measuring again makes no variant, so that it has no use for {' and '.join(idle)}: leave "
            f"{'it' if len(idle) == 1 else 'them'} out"
        )


def _refuse_overflowing(name: str, variant: Variant) -> None:
    """Refuse a variant that `load` refuses on this CPU: its figures would be those of wrong products.

    Raises:
        UsageError: for such a variant.
    """
    if suits(variant.requires, CPU) and overflows(variant.requires.isa):
        raise UsageError(
            f"variant {name!r} is made for {variant.requires.isa}, and its 8-bit products overflow on this CPU "
            f"({cpu.cpu().instruction_set}), so that it cannot be measured here: make it again with bertport quantize "
            "--overwrite, or name the others with --recipe"
        )


def _measured_on_cpu(variant: Variant) -> bool:
    """Return whether a variant is for the CPU, or for a provider here that was timed against it."""
    if suits(variant.requires, CPU):
        return True
    try:
        return RECIPES[variant.recipe].timed_against == CPU and bool(provider_for(RECIPES[variant.recipe]))
    except ProviderError:
        return False


def _default_with(name: str, variant: Variant) -> Callable[[Bundle], str]:
    """Return what chooses a bundle's default once a variant has new figures."""
    return lambda now: faster_default(now, name, variant) or REFERENCE


def explain(path: str | os.PathLike[str], name: str, *, options: Options) -> tuple[Layers, list[str]]:
    """Return the table of a recipe's layers, and which of them its variant has in higher precision.

    The table that a search saved is read; where there is none, or the instruction set that is asked for has other
    weights than the variant, it is measured. It is saved if the bundle has the variant, of these weights, and can be
    written.

    Args:
        path: The bundle's directory.
        name: Name of the recipe.
        options: How to measure.

    Raises:
        UnknownNameError, UsageError: for an unknown recipe, or one without layers to rank.
        MissingDependencyError: without a package that makes graphs.
    """
    recipe = recipe_named(name)
    emitter_of(recipe)
    tidy(path, write=False)  # a table that was saved is read from bundles that nobody may write, too
    bundle = Bundle.open(path)
    variant = bundle.manifest.variants.get(name)
    asked = INSTRUCTION_SETS.get(options.isa)
    file = listed(bundle.manifest, layers_file(name))
    if file is not None and (options.isa == AUTO or not _has_other_weights(variant, recipe, asked)):
        saved = json.loads(bundle.read(file))
        return Layers.from_json(saved), list(saved["higher_precision"])
    refuse_idle_settings([recipe], options)
    check_packages()
    evaluator = prepare(bundle, options)
    isa = resolve_isa(options.isa)
    source = read_source([recipe], bundle, isa, options)
    calibrator = calibrator_for([recipe], bundle, source, options)
    calibrated = calibrator.apply(source, recipe) if calibrator else source
    layers = rank_layers(evaluator, recipe, levels_of(recipe, calibrated)[0])  # as a search would
    if variant is None:
        return layers, []
    # A search that the time ended before it had a table leaves layers in higher precision, too.
    higher = list((variant.fidelity or {}).get("higher_precision", []))
    if _has_other_weights(variant, recipe, isa):
        made_for, own = isa.name if isa else "an unknown CPU", variant.requires.isa or "any CPU"
        options.noted(f"the table is not saved: its weights are for {made_for}, and those of {name} here for {own}")
        return layers, higher
    try:
        refresh_card(add_files(bundle, lambda directory: write_layers(layers, higher, name, directory)))
    except (PathError, BundleError) as error:  # what was measured is the answer all the same
        options.noted(f"the table is not saved: {error.message}")
    return layers, higher


def _has_other_weights(variant: Variant | None, recipe: Recipe, isa: InstructionSet | None) -> bool:
    """Return whether a variant has weights that were rounded otherwise than for an instruction set."""
    if variant is None or not recipe.by_instruction_set:
        return False
    return saturates(INSTRUCTION_SETS.get(variant.requires.isa or "")) != saturates(isa)
