"""Quantizing a bundle: make a graph, measure it, and add it when it keeps its promises."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bertport.measure.budget import Budget, budget_for
from bertport.quantize.calibration.ranges import DEFAULT, Calibration
from bertport.quantize.calibrator import Calibrator
from bertport.quantize.card import refresh_card
from bertport.quantize.deadline import Deadline, TimeUpError, format_duration
from bertport.quantize.evaluation import (
    LEAST_POSITIONS,
    PAIRS,
    POSITIONS,
    REFERENCE,
    Measurement,
    measurement,
    open_reference,
    read_evaluation,
    time_against,
)
from bertport.quantize.graph.fusion import fuse, load_plain
from bertport.quantize.graph.rewrite import NARROWEST
from bertport.quantize.graph.storage import write_graph
from bertport.quantize.isa import AUTO, saturates, target
from bertport.quantize.plot import bars
from bertport.quantize.recipes.dynamic import WeightCache
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.recipes.table import RECIPES, Recipe, recipe_named
from bertport.quantize.search.evaluator import Evaluator
from bertport.quantize.search.layer_timing import linears
from bertport.quantize.search.mixed_precision import BrokenBudgetError, meet_budget
from bertport.quantize.weights.calibrated import fit
from bertport.runtime.bundle.changes import Workspace, add_variant, tidy
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import Variant
from bertport.runtime.bundle.requirements import requires_of
from bertport.runtime.bundle.select import CPU, suits
from bertport.runtime.errors import BundleError, ProviderError, SlowerError, UsageError, ValidationError
from bertport.runtime.providers.table import PROVIDERS, onnxruntime

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Sequence

    import onnx

    from bertport.quantize.search.sensitivity import Layers
    from bertport.runtime.providers.cpu import InstructionSet
    from bertport.runtime.providers.table import Provider

    Progress = Callable[[str, int, int], None]

__all__ = ["Options", "Outcome", "Refused", "quantize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A variant that was added."""

    name: str
    """Of the variant."""
    variant: Variant
    """Its entry in the manifest."""
    measured: Measurement
    """What it costs and gives."""
    default: bool
    """Whether `load` takes it when no variant is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A variant that was measured and not added."""

    name: str
    """Of the variant."""
    measured: Measurement
    """What it costs and gives; without speed and size where accuracy decided."""
    reason: str
    """The sentence of the error that follows."""


def _untold(result: Outcome | Refused) -> None:  # noqa: ARG001 — the signature
    return


def _silent(stage: str, done: int, count: int) -> None:  # noqa: ARG001 — the signature of progress
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to make and measure variants."""

    isa: str = AUTO
    """The instruction set to make them for, as in `target.CHOICES`."""
    budget: Budget | None = None
    """How far from fp32 they may be; None for the default, of which what the bundle has is taken."""
    text: str | os.PathLike[str] | None = None
    """Held-out text to measure accuracy on; None for the sample that ships."""
    calibration: str | os.PathLike[str] | None = None
    """Text for the search and for calibration; None for the other sample that ships."""
    calibrating: Calibration = DEFAULT
    """How activations are calibrated, for recipes that do so."""
    positions: int = POSITIONS
    """Masked positions to measure on, about."""
    pairs: int = PAIRS
    """Sentence pairs to measure on, at most."""
    overwrite: bool = False
    """Whether a variant that is there may be made again."""
    force: bool = False
    """Whether one that is slower than fp32 here is written all the same, and marked."""
    time_limit: float | None = None
    """Seconds from `started` after which the search for a variant within the budget ends with the best it has found."""
    started: float = field(default_factory=time.monotonic)
    """When the command began, by `time.monotonic`."""
    progress: Progress = _silent
    """Told of the stage, what is done of it, and how much there is."""
    told: Callable[[Outcome | Refused], None] = _untold
    """Given each variant as soon as it was added or refused."""

    def __post_init__(self) -> None:
        """Check the time limit."""
        limit = self.time_limit
        if limit is not None and not (0 < limit < math.inf):
            raise UsageError(f"a time limit is a number of seconds above 0, not {limit!r}")


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
        PathError, BundleError: when there is no bundle, it is damaged, or it cannot be written.
        UnknownNameError: for a recipe or instruction set that there is not.
        UsageError: for a variant that is there already.
        MissingHeadError: for a bound that was asked for on a head that is not there.
        InputTextError: for a text that the vocabulary does not read.
        SlowerError: for a variant that is slower than fp32.
        ProviderError: for a recipe whose providers are not here.
        ValidationError: for a variant that breaks its budget. What was not added leaves the bundle as it was.
    """
    options = options or Options()
    rows = [recipe_named(name) for name in dict.fromkeys(recipes)] or [next(iter(RECIPES.values()))]
    instruction_set = target(options.isa)
    tidy(path)
    bundle = Bundle.open(path)
    for row in rows:
        if row.name in bundle.manifest.variants and not options.overwrite:
            raise UsageError(
                f"the bundle at {bundle.path} has the variant {row.name!r} already: pass --overwrite to make it again, "
                "or --remeasure to refresh its figures"
            )
    refuse_idle_settings(rows, options)
    providers = [provider_for(row, force=options.force) for row in rows]
    deadline = Deadline(options.time_limit, options.started)
    options = dataclasses.replace(options, progress=deadline.watching(options.progress))
    outcomes: list[Outcome] = []
    try:
        evaluator = dataclasses.replace(prepare(bundle, options), deadline=deadline)
        options = dataclasses.replace(options, budget=measured_budget(evaluator, options))
        _check_calibration(rows, bundle, options)
        source = read_source(rows, bundle, instruction_set, options)
        calibrator = calibrator_for(rows, bundle, source, options)
        for row, provider in zip(rows, providers, strict=True):
            evaluator = dataclasses.replace(evaluator, bundle=Bundle.open(path), provider=provider.name)
            outcomes.append(_add(evaluator, row, source, options, calibrator))
            options.told(outcomes[-1])
    except TimeUpError:
        raise ValidationError(
            f"the time limit of {format_duration(options.time_limit or 0)} passed before {rows[len(outcomes)].name} "
            "was measured: give a longer --time-limit; the bundle is as it was"
            + (f", with {' and '.join(each.name for each in outcomes)} added" if outcomes else "")
        ) from None
    return outcomes


def measured_budget(evaluator: Evaluator, options: Options) -> Budget:
    """Return the budget that variants of a bundle are held to.

    Raises:
        MissingHeadError: for a bound that was asked for on a head that is not there.
        UsageError: for one on pairs where there are none to measure on.
    """
    heads = set(evaluator.bundle.manifest.heads)
    if not any(each.next_sentence is not None for each in evaluator.evaluation.samples):
        _refuse_bound_on_no_pairs(options, heads, f"{evaluator.evaluation.name} makes no pair of sentences")
        heads.discard("nsp")
    return budget_for(options.budget, heads)


def _refuse_bound_on_no_pairs(options: Options, heads: Collection[str], found: str) -> None:
    """Refuse a bound that was asked for on pairs of sentences that there are none of, though there is the head."""
    if "nsp" in heads and options.budget is not None and "nsp" in options.budget.bounds:
        raise UsageError(
            f"the budget bounds NSP flips (nsp), and {found} to measure them on: give more --pairs, or text of several "
            "sentences a paragraph, or leave the bound out"
        )


def _check_calibration(recipes: Iterable[Recipe], bundle: Bundle, options: Options) -> None:
    """Read the calibration text, if only its beginning, before anything is measured: a mistake must not cost more."""
    searched = options.budget is not None and options.budget.bounds
    if any(row.fits_weights or row.form or (searched and row.emitter) for row in recipes):
        read_evaluation(bundle, options.calibration, sample="calibration", positions=LEAST_POSITIONS, pairs=0)


def prepare(bundle: Bundle, options: Options) -> Evaluator:
    """Read the held-out text and open the fp32 graph; what cannot be measured is refused before."""
    _check_source(bundle)
    if not options.pairs:
        _refuse_bound_on_no_pairs(options, bundle.manifest.heads, "--pairs 0 leaves none")
    budget_for(options.budget, set(bundle.manifest.heads) - (set() if options.pairs else {"nsp"}))
    evaluation = read_evaluation(
        bundle, options.text, sample="evaluation", positions=options.positions, pairs=options.pairs
    )
    return Evaluator(
        bundle=bundle,
        reference=open_reference(bundle),
        evaluation=evaluation,
        calibration=options.calibration,
        progress=options.progress,
    )


def read_source(
    recipes: Sequence[Recipe], bundle: Bundle, instruction_set: InstructionSet | None, options: Options
) -> GraphSource:
    """Read the fp32 serving graph, as it is and fused; fit 8-bit weights to the calibration text for who wants that."""
    options.progress("fusing the fp32 graph", 0, 0)
    with bundle.opening(REFERENCE) as path:
        read = load_plain(path)
        _refuse_narrow(recipes, bundle, read)
        plain = read if any(each.takes_plain for each in recipes) else None
        del read  # its weights are those of the fused one
        fused = fuse(path, bundle.manifest.architecture)
    saturating = saturates(instruction_set)
    weights = (
        fit(bundle, fused, options.calibration, saturating=saturating, progress=options.progress)
        if any(each.fits_weights for each in recipes)
        else WeightCache(saturating=saturating)
    )
    plain = fused if plain is None else plain
    return GraphSource(plain=plain, fused=fused, instruction_set=instruction_set, weights=weights)


def _refuse_narrow(recipes: Iterable[Recipe], bundle: Bundle, plain: onnx.ModelProto) -> None:
    """Refuse a graph of which a recipe would change nothing.

    Raises:
        UsageError: for such a graph.
    """
    idle = [row.name for row in recipes if row.emitter]
    if idle and not linears(plain):
        raise UsageError(
            f"no matrix of the model at {bundle.path} has {NARROWEST} rows and columns, below which 8 bits save "
            f"nothing, so {idle[0]} would leave it as it is: use the variant {REFERENCE!r}"
        )


def calibrator_for(
    recipes: Iterable[Recipe], bundle: Bundle, source: GraphSource, options: Options
) -> Calibrator | None:
    """Return what calibrates the graph, or None where no recipe asks for it; it reads its text at once."""
    if not any(row.form for row in recipes):
        return None
    how = options.calibrating
    return Calibrator(bundle, source.plain, how, text=options.calibration, progress=options.progress)


def refuse_idle_settings(recipes: Iterable[Recipe], options: Options) -> None:
    """Refuse settings of the calibration where nothing is calibrated.

    Raises:
        UsageError: for such a setting.
    """
    idle = [
        each.name
        for each in dataclasses.fields(Calibration)
        if getattr(options.calibrating, each.name) != getattr(DEFAULT, each.name)
    ]
    if idle and not any(row.form for row in recipes):
        names = ", ".join(row.name for row in RECIPES.values() if row.form)
        raise UsageError(
            f"a calibration {' and '.join(idle)} was set, but none of the recipes asked for calibrates activations: "
            f"leave it out, or ask for one that does ({names})"
        )


def provider_for(recipe: Recipe, *, force: bool = False) -> Provider:
    """Return the first of a recipe's providers that works here; by force the CPU where none does.

    Raises:
        ProviderError: when none does.
    """
    usable = onnxruntime().get_available_providers()
    for name in recipe.providers:
        if PROVIDERS[name].ort in usable:
            return PROVIDERS[name]
    if force:
        return PROVIDERS["cpu"]
    raise ProviderError(
        f"{recipe.name} is for {' and '.join(recipe.providers)}, which this machine does not have, so it cannot be "
        "loaded and timed here: quantize on a machine that does, or pass --force to add it measured on the CPU only"
    )


def _check_source(bundle: Bundle) -> None:
    variant = bundle.manifest.variants.get(REFERENCE)
    if variant is None or variant.kind != "serving":
        raise BundleError(f"the bundle at {bundle.path} has no fp32 serving graph to quantize: export it again")


def _add(
    evaluator: Evaluator, recipe: Recipe, source: GraphSource, options: Options, calibrator: Calibrator | None
) -> Outcome:
    bundle, progress, budget = (
        evaluator.bundle,
        evaluator.progress,
        options.budget or measured_budget(evaluator, options),
    )
    with Workspace.beside(bundle) as work:
        directory = work.directory
        source = calibrator.apply(source, recipe) if calibrator else source
        progress(f"making {recipe.name}", 0, 0)
        evaluator.deadline.armed = True
        try:
            solution = meet_budget(evaluator, recipe, source, budget)
        except BrokenBudgetError as error:
            found = Measurement.of_accuracy(error.accuracy, evaluator.evaluation)
            options.told(Refused(name=recipe.name, measured=found, reason=str(error)))
            raise
        evaluator.deadline.armed = False  # what was found has yet to be timed and written
        model = recipe.make(solution.source)
        file = work.reserve(recipe.file)
        graph = directory / Path(file).name
        # The graph names its weights' file, so both get the names that they will have in the bundle.
        weights = {str(PurePosixPath(file).with_name(each.name)): each for each in write_graph(model, graph)}
        speed = time_against(bundle, graph, progress=progress, provider=evaluator.provider)
        measured = measurement(bundle, graph, solution.accuracy, evaluator.evaluation, speed)
        if measured.slower and not (recipe.for_size or options.force):
            ratios = ", ".join(f"{each.speedup:.2f}x at {shape}" for shape, each in speed.items())
            message = (
                f"{recipe.name} is slower than fp32 on this machine ({ratios}): pass --force to add it all the same, "
                "marked as slower; the bundle is as it was"
            )
            options.told(Refused(name=recipe.name, measured=measured, reason=message))
            raise SlowerError(message)
        higher = sorted(solution.source.high_precision_layers)
        higher_is = (
            "16-bit activations" if recipe.int16_activations and not solution.source.float_fallback else "float32"
        )
        variant = describe(
            recipe,
            model,
            source.instruction_set,
            outputs=evaluator.reference.outputs,
            fidelity=measured.to_json()
            | {
                "provider": evaluator.provider,
                "budget": str(budget),
                "higher_precision": higher,
                "higher_is": higher_is,
            }
            | {"verdicts": budget.verdicts(solution.accuracy)}
            | ({"search": solution.search} if solution.search else {})
            | ({"calibration": calibrator.record(source)} if calibrator and recipe.form else {})
            | ({"weights_fitted_to": source.weights.fitted_to} if recipe.fits_weights or recipe.form else {}),
        )
        variant = dataclasses.replace(variant, file=file, external_data=tuple(weights))
        files = {file: graph, **weights}
        if solution.layers:
            files |= write_layers(solution.layers, higher, recipe.name, directory)
        bundle = add_variant(
            work,
            recipe.name,
            variant,
            files,
            overwrite=options.overwrite,
            default=lambda now: faster_default(now, recipe.name, variant),
        )
        refresh_card(bundle)
    return Outcome(
        name=recipe.name,
        variant=bundle.manifest.variants[recipe.name],
        measured=measured,
        default=bundle.manifest.default_variant == recipe.name,
    )


def layers_file(name: str) -> str:
    """Return the path inside the bundle of a variant's table of layers."""
    return f"quantization/{name}.json"


def write_layers(layers: Layers, higher: Sequence[str], name: str, directory: Path) -> dict[str, Path]:
    """Write a variant's table of layers and its plot; give where they are, by path inside the bundle."""
    table, plot = directory / f"{name}.json", directory / f"{name}.svg"
    table.write_text(
        json.dumps(layers.to_json() | {"higher_precision": list(higher)}, indent=1) + "\n", encoding="utf-8"
    )
    plot.write_text(bars(layers, higher), encoding="utf-8")
    return {layers_file(name): table, str(PurePosixPath(layers_file(name)).with_suffix(".svg")): plot}


def describe(
    recipe: Recipe,
    model: onnx.ModelProto,
    instruction_set: InstructionSet | None,
    *,
    outputs: tuple[str, ...],
    fidelity: dict[str, Any],
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


def faster_default(bundle: Bundle, name: str, variant: Variant) -> str | None:
    """Make the fastest variant for the CPU that was measured within a budget the bundle's default.

    A provider that the default is not for gets fp32, as before.
    """
    fastest, default = 1.0, None
    for each, entry in {**bundle.manifest.variants, name: variant}.items():
        found = entry.fidelity
        if suits(entry.requires, CPU) and found and found.get("budget") not in (None, "none"):
            ratio = min(float(speed["speedup"]) for speed in found["speed"].values())
            if ratio > fastest:
                fastest, default = ratio, each
    return default
